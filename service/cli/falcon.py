"""`spikeloop falcon`: run bundles in the FALCON benchmark."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibration.falcon.decoders import Decoders

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

ABOUT = """\
Hand a decoder to the evaluator of the FALCON benchmark (the package falcon_challenge) and print
its metrics: of all files of a phase, or of the files that are named.

BUNDLE is a bundle for all sessions, or a folder that holds a bundle for each session, named as
FALCON names it: 20121004 (m1), 20201030 or Run1_20201030 (m2), S6 or S6_set_1 (h1)."""


def add_commands(commands: Commands) -> None:
    """Add the command."""
    p = commands.add_parser(
        "falcon",
        help="run a decoder in the FALCON benchmark",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("bundle", type=Path, metavar="BUNDLE")
    p.add_argument("files", type=Path, nargs="*", metavar="FILE.nwb",
                   help="score these alone, on this machine")  # fmt: skip
    p.add_argument("--task", required=True, metavar="m1|m2|h1")
    p.add_argument("--phase", default=None, choices=("minival", "test"), help="default: minival")
    p.add_argument("--evaluation", default="local", choices=("local", "remote"),
                   help="remote: inside the container that EvalAI runs")  # fmt: skip
    p.add_argument("--data", type=Path, default=None, metavar="FOLDER",
                   help="holds a folder a task; else $EVAL_DATA_PATH, else ./data")  # fmt: skip
    p.add_argument("--batch-size", type=int, default=1, help="files decoded side by side")
    p.add_argument("--check", action="store_true", help="hold BUNDLE against the task, no more")
    p.set_defaults(run=_falcon)


def _falcon(a: argparse.Namespace) -> None:
    from calibration.falcon.decoders import open_decoders
    from streams.sessions.falcon import falcon_task

    decoders = open_decoders(a.bundle, falcon_task(a.task))
    for line in notes(decoders):
        sys.stderr.write(f"spikeloop: {line}\n")
    metrics = None if a.check else _run(decoders, a)
    told: dict[str, Any] = {"task": a.task, "decoders": _told(decoders)}
    sys.stdout.write(json.dumps(told | {"metrics": metrics}, indent=2) + "\n")


def _run(decoders: Decoders, a: argparse.Namespace) -> dict[str, Any] | None:
    from calibration.falcon.errors import FalconError

    try:
        from calibration.falcon.challenge import run_challenge, score_files
    except ImportError as error:
        raise FalconError(
            f"the FALCON benchmark cannot be loaded ({error}): "
            "python3 -m pip install 'spikeloop[falcon]'"
        ) from error
    if a.files:
        if a.phase or a.data or a.evaluation == "remote":
            raise FalconError(
                "files are scored on this machine: leave out --phase, --data and --evaluation"
            )
        return score_files(decoders, a.files, batch_size=a.batch_size)
    return run_challenge(
        decoders,
        phase=a.phase or "minival",
        remote=a.evaluation == "remote",
        batch_size=a.batch_size,
        data=a.data,
    )


def notes(decoders: Decoders) -> list[str]:
    """What a user should know of the decoders before their score is read."""
    from calibration.falcon.fit import reads_spike_times

    timed = {
        fitted.bundle.manifest.name
        for fitted in decoders.by_session.values()
        if reads_spike_times(fitted.bundle)
    }
    return [
        f"decoder {name} learnt from the times of spikes, and FALCON gives counts: it may decode "
        "worse than in `spikeloop evaluate` without --falcon"
        for name in sorted(timed)
    ]


def _told(decoders: Decoders) -> dict[str, dict[str, Any]]:
    return {
        session or "all sessions": {
            "decoder_id": fitted.bundle.manifest.name,
            "checksum": fitted.bundle.manifest.id,
            "units": len(fitted.bundle.row_of_key),
        }
        for session, fitted in decoders.by_session.items()
    }
