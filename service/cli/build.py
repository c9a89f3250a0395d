"""`spikeloop build`: compile a bundle's graph for a device."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from service.cli.options import Command, arg, flag, listed, opt

if TYPE_CHECKING:
    from export.backends.table import Backend
    from export.bundle import DecoderBundle


def build(
    bundle: Annotated[str, arg("BUNDLE", "Folder of the decoder.")],
    backend: Annotated[str, opt("What will run it.")] = "tensorrt",
    precision: Annotated[Literal["fp32", "fp16", "bf16"], opt("Of the numbers.")] = "fp32",
    target: Annotated[
        str,
        opt(
            "Cards to compile for on any machine, by compute capability: sm86 (Ampere), "
            "sm89 (Ada), sm120 (Blackwell); by default these and the card in this machine.",
            "SM,SM",
        ),
    ] = "",
    with_bundle: Annotated[
        bool, flag("--with-bundle", "Keep the engines in the bundle's folder, sent with it.")
    ] = False,
    session: Annotated[Path | None, opt("Holds fp16 and bf16 against fp32.", "SESSION.nwb")] = None,
    split: Annotated[str, opt("The scored part of the recording.")] = "last:0.2",
    bound: Annotated[float, opt("R2 that may be lost.")] = 0.01,
    as_json: Annotated[bool, flag("--json", "Print the build's record.")] = False,
) -> None:
    """Compile a bundle's graph for a device."""
    from export.bundle import open_bundle
    from export.engines.build import build as compile_graph
    from service.daemon.serve import bundle_path

    opened = open_bundle(bundle_path(bundle))
    made = compile_graph(
        opened,
        backend,
        precision,
        targets=[name.lower() for name in listed(target)],
        with_bundle=with_bundle,
        judge=None if session is None else _judge(opened, session, split),
        bound=bound,
        say=_say,
    )
    if as_json:
        sys.stdout.write(json.dumps({"path": str(made.path), **made.record}, indent=1) + "\n")
        return
    if not made.is_judged:
        sys.stdout.write(f"{made.path}\nnot to be served yet: name a recording with --session\n")
        return
    choice = backend if precision == "fp32" else f"{backend}:{precision}"
    sys.stdout.write(f'{made.path}\nto serve with it: backend = "{choice}" under [decoder]\n')


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _judge(
    bundle: DecoderBundle, session: Path, split: str
) -> Callable[[Backend], Mapping[str, Any]]:
    from calibration.precision_gate import PrecisionGate

    gate = PrecisionGate(bundle, session, split)
    return lambda backend: asdict(gate.judge(backend))


COMMANDS: dict[str, Command] = {"build": build}
