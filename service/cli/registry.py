"""Commands of the registry: which decoders there are, and which is the current one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from service.cli.options import Bundle, Command, Registry, arg, opt

if TYPE_CHECKING:
    from calibration.registry import Registry as Decoders

Id = Annotated[str, arg("ID", "Or as much of its beginning as is unique.")]
Why = Annotated[str, opt("Note for the history.")]
FOLDER = Path("bundles")


def add(bundle: Bundle, why: Why, registry: Registry = FOLDER) -> None:
    """Take a bundle into the registry."""
    sys.stdout.write(_decoders(registry).add(bundle, why) + "\n")


def use(decoder_id: Id, why: Why, registry: Registry = FOLDER) -> None:
    """Make a decoder of the registry the current one."""
    sys.stdout.write(_decoders(registry).promote(decoder_id, why) + "\n")


def show(decoder_id: Id, registry: Registry = FOLDER) -> None:
    """Show one decoder of the registry, and what was done with it."""
    held = _decoders(registry)
    entry = held.show(decoder_id)
    history = [asdict(event) for event in held.history() if event.id == entry.id]
    told = asdict(entry) | {"path": str(entry.path), "history": history}
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def list_decoders(registry: Registry = FOLDER) -> None:
    """List the registry's decoders."""
    for one in _decoders(registry).entries():
        line = f"{'*' if one.current else ' '} {one.id[:12]}  {one.created_utc[:19]}  {one.name}"
        sys.stdout.write(f"{line}  {one.session}  {_quality(one.r2)}\n")


def _quality(r2: Mapping[str, Sequence[float]] | None) -> str:
    if not r2:
        return "not verified"
    named = (f"{name} {' / '.join(f'{one:.2f}' for one in r2[name])}" for name in r2)
    return f"R2 {', '.join(named)}"


def _decoders(folder: Path) -> Decoders:
    from calibration.registry import Registry as Decoders

    return Decoders(folder)


COMMANDS: dict[str, Command] = {
    "add": add,
    "list": list_decoders,
    "show": show,
    "use": use,
}
