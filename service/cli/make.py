"""Commands that make decoders and judge them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    for add in (_add_train, _add_export, _add_evaluate):
        add(commands)


def _add_train(commands: Commands) -> None:
    p = commands.add_parser("train", help="train a decoder")
    p.add_argument("config", type=Path, metavar="CONFIG.toml")
    p.add_argument("--out", type=Path, default=None, metavar="RUN", help="run directory")
    p.add_argument("--resume", action="store_true")
    p.set_defaults(run=_train)


def _train(a: argparse.Namespace) -> None:
    from decoders.training import train

    sys.stdout.write(f"{train(a.config, resume=a.resume, out=a.out)}\n")


def _add_export(commands: Commands) -> None:
    p = commands.add_parser("export", help="make a bundle of a trained decoder")
    p.add_argument("run_dir", type=Path, metavar="RUN")
    p.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE")
    p.add_argument("--session", default=None, help="whose session vector; default: the last")
    p.set_defaults(run=_export)


def _export(a: argparse.Namespace) -> None:
    from export.graph import export_run

    bundle = export_run(a.run_dir, a.out, session=a.session)
    sys.stdout.write(f"{bundle.path}  {bundle.manifest.name}  {bundle.manifest.id[:12]}\n")


def _add_evaluate(commands: Commands) -> None:
    p = commands.add_parser("evaluate", help="decode recordings causally and score the decoder")
    p.add_argument("bundle", type=Path)
    p.add_argument("sessions", type=Path, nargs="+", metavar="SESSION.nwb")
    p.add_argument("--split", default="last:0.2")
    p.add_argument("--figure", type=Path, default=None)
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_evaluate)


def _evaluate(a: argparse.Namespace) -> None:
    import json

    from calibration.evaluate import evaluate

    result = evaluate(a.bundle, a.sessions, split=a.split, figure=a.figure)
    sys.stdout.write(json.dumps(result, indent=None if a.json else 2) + "\n")
