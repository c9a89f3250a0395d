"""`spikeloop falcon`: run bundles in the FALCON benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from service.cli.options import Command, arg, flag, opt

if TYPE_CHECKING:
    from calibration.falcon.decoders import Decoders


def falcon(
    bundle: Annotated[Path, arg("BUNDLE", "A bundle, or a folder of them.")],
    task: Annotated[str, opt("Task of the benchmark.", "m1|m2|h1")],
    files: Annotated[list[Path] | None, arg("FILE.nwb", "Score these alone, here.")] = None,
    phase: Annotated[Literal["minival", "test"] | None, opt("Of files; default: minival.")] = None,
    evaluation: Annotated[
        Literal["local", "remote"], opt("remote: in EvalAI's container.")
    ] = "local",
    data: Annotated[
        Path | None, opt("Folder of the data; else $EVAL_DATA_PATH or ./data.", "FOLDER")
    ] = None,
    batch_size: Annotated[int, opt("Files decoded side by side.")] = 1,
    check: Annotated[bool, flag("--check", "Hold BUNDLE against the task, no more.")] = False,
) -> None:
    """Run a decoder in the FALCON benchmark.

    Hand a decoder to the evaluator of the benchmark (the package falcon_challenge) and print its
    metrics: of all files of a phase, or of the files that are named.

    BUNDLE is a bundle for all sessions, or a folder that holds a bundle for each session, named as
    FALCON names it: 20121004 (m1), 20201030 or Run1_20201030 (m2), S6 or S6_set_1 (h1).
    """
    from calibration.errors import FalconError
    from calibration.falcon.decoders import open_decoders
    from streams.sessions.falcon import falcon_task

    decoders = open_decoders(bundle, falcon_task(task))
    for line in notes(decoders):
        sys.stderr.write(f"spikeloop: {line}\n")
    is_remote, metrics = evaluation == "remote", None
    if not check:
        try:
            from calibration.falcon.challenge import run_challenge, score_files
        except ImportError as error:
            raise FalconError(
                f"the FALCON benchmark cannot be loaded ({error}): "
                "python3 -m pip install 'spikeloop[falcon]'"
            ) from error
        if files and (phase or data or is_remote):
            raise FalconError(
                "files are scored on this machine: leave out --phase, --data and --evaluation"
            )
        metrics = (
            score_files(decoders, files, batch_size=batch_size)
            if files
            else run_challenge(
                decoders,
                phase=phase or "minival",
                remote=is_remote,
                batch_size=batch_size,
                data=data,
            )
        )
    told: dict[str, Any] = {"task": task, "decoders": _told(decoders), "metrics": metrics}
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def notes(decoders: Decoders) -> list[str]:
    """Tell what a user should know before they read the score."""
    from calibration.falcon.decoders import reads_spike_times

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


COMMANDS: dict[str, Command] = {"falcon": falcon}
