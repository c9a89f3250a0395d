"""A bundle on its way to a daemon on another machine: its files in checksummed chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

CHUNK_BYTES = 2**20


class Ask(Protocol):
    """Sends a command to the daemon and returns its result; raises where it declines."""

    def __call__(
        self, command: str, attached: bytes | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """`attached`: bytes that go with it."""


def start_deployment(
    ask: Ask, path: Path, *, send: bool, shadow_s: float = 0.0, hold: bool = False,
    tables: bool = False, keep_s: float = 0.0,
) -> None:  # fmt: skip
    """Have a bundle deployed; the command `deployment` tells how far it is.

    Args:
        ask: of the daemon.
        path: the bundle's directory.
        send: send its files; else it lies on the daemon's host.
        shadow_s: how long it decodes in shadow first.
        hold: whether it stays there until it is promoted.
        tables: exchange its tables alone, at once; refused where another network is in service.
        keep_s: with `tables`: they go out of service where nobody says `keep` for so long.
    """
    how: dict[str, Any] = {"shadow_s": shadow_s, "hold": hold}
    if tables:
        how = {"tables": True, "keep_s": keep_s}
    if send:
        send_bundle(ask, path, how)
    else:
        ask("swap", bundle=str(path.resolve()), **how)


def send_bundle(ask: Ask, path: Path, how: Mapping[str, Any]) -> None:
    """Send the files of a bundle, and have it deployed once all are there.

    Args:
        ask: of the daemon.
        path: the bundle's directory, its report included.
        how: arguments of `send_end` that say how it goes into service.
    """
    files = {
        str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()
    }
    sizes = {name: file.stat().st_size for name, file in files.items()}
    transfer = ask("send_begin", files=sizes)["transfer"]
    for name, file in files.items():
        for offset, held in _chunks(file):
            ask(
                "send_chunk", held, transfer=transfer, file=name, offset=offset,
                sha256=hashlib.sha256(held).hexdigest(),
            )  # fmt: skip
    ask("send_end", transfer=transfer, **how)


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        offset = 0
        while held := file.read(CHUNK_BYTES):
            yield offset, held
            offset += len(held)
