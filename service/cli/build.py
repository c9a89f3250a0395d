"""`spikeloop build`: compile a bundle's graph for a device."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.backend_table import Backend
    from export.bundle import DecoderBundle

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Add the command."""
    p = commands.add_parser("build", help="compile a bundle's graph for a device")
    p.add_argument("bundle", metavar="BUNDLE")
    p.add_argument("--backend", default="tensorrt")
    p.add_argument("--precision", default="fp32", choices=("fp32", "fp16", "bf16"))
    p.add_argument(
        "--target",
        default="",
        metavar="SM,SM",
        help="cards to compile for on any machine, by compute capability: sm86 (Ampere), "
        "sm89 (Ada), sm120 (Blackwell); by default these and the card in this machine",
    )
    p.add_argument(
        "--with-bundle",
        action="store_true",
        help="keep the engines in the bundle's folder: they are sent with it",
    )
    p.add_argument("--session", type=Path, default=None, metavar="SESSION.nwb",
                   help="a recording to hold fp16 and bf16 against fp32 on")  # fmt: skip
    p.add_argument("--split", default="last:0.2", help="the scored part of the recording")
    p.add_argument("--bound", type=float, default=0.01, help="R2 that may be lost")
    p.add_argument("--json", action="store_true", help="print the build's record")
    p.set_defaults(run=_build)


def _build(a: argparse.Namespace) -> None:
    from export.bundle import open_bundle
    from export.compiled.build import build
    from service.daemon.serve import bundle_path

    bundle = open_bundle(bundle_path(a.bundle))
    made = build(
        bundle,
        a.backend,
        a.precision,
        targets=[name.strip().lower() for name in a.target.split(",") if name.strip()],
        with_bundle=a.with_bundle,
        judge=None if a.session is None else _judge(bundle, a.session, a.split),
        bound=a.bound,
        say=_say,
    )
    if a.json:
        sys.stdout.write(json.dumps({"path": str(made.path), **made.record}, indent=1) + "\n")
        return
    if not made.is_judged:
        sys.stdout.write(f"{made.path}\nnot to be served yet: name a recording with --session\n")
        return
    choice = a.backend if a.precision == "fp32" else f"{a.backend}:{a.precision}"
    sys.stdout.write(f'{made.path}\nto serve with it: backend = "{choice}" under [decoder]\n')


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _judge(
    bundle: DecoderBundle, session: Path, split: str
) -> Callable[[Backend], Mapping[str, Any]]:
    from calibration.precision_gate import PrecisionGate

    gate = PrecisionGate(bundle, session, split)
    return lambda backend: asdict(gate.judge(backend))
