"""`spikeloop calibrate`: opens or resumes a calibration, goes through it, says what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from calibration.wizard.config import load_config
from calibration.wizard.errors import BELOW_THRESHOLD, WizardError
from calibration.wizard.face import AutoFace, Face, QuitError
from calibration.wizard.progress import FILE, Progress
from calibration.wizard.run import Run
from calibration.wizard.wizard import go_through
from export.errors import ExportError
from streams.clock import Clock, MonotonicClock
from streams.errors import StreamsError


def calibrate(
    config_path: Path, *, folder: Path | None, auto: bool, as_json: bool, resume: bool
) -> int:
    """Go through a calibration.

    Args:
        config_path: of the wizard.
        folder: of the calibration; today's under the config's folder if None.
        auto: ask nobody.
        as_json: one JSON object at the end.
        resume: go on where the last one was left.

    Returns:
        0, or 8 when the decoder was rejected.

    Raises:
        WizardError: it could not be done; what is done is saved, and `--resume` goes on.
    """
    config, clock = load_config(config_path), MonotonicClock()
    if not auto and not sys.stdin.isatty():
        raise WizardError("the wizard needs a terminal; without one, use --auto")
    where = folder or _folder(Path(config.calibration.folder), resume=resume)
    progress = Progress(where, resume=resume)
    again = f"spikeloop calibrate {config_path} --folder {where} --resume"
    t_begin_s = clock.now()
    try:
        with _face(auto, clock) as face:
            held = Run(config, progress, face, clock, auto)
            go_through(held)
    except QuitError:
        sys.stderr.write(f"left; go on with: {again}\n")
        return 0
    except (WizardError, StreamsError, ExportError) as err:
        if as_json:
            _say({"ok": False, "folder": str(where), "error": str(err)})
        if progress.steps:
            sys.stderr.write(f"what is done is saved; go on with: {again}\n")
        raise
    finally:
        progress.close()
    return _close(summary(held, clock.now() - t_begin_s), auto=auto, as_json=as_json)


def _close(result: dict[str, Any], *, auto: bool, as_json: bool) -> int:
    """Say what came of it; the exit code."""
    if as_json:
        _say(result)
    elif not auto:
        sys.stderr.write(f"{_told(result)}\n")
    return 0 if result["decided"] == "accept" else BELOW_THRESHOLD


def summary(held: Run, total_s: float) -> dict[str, Any]:
    """What came of it, JSON-able."""
    steps = held.progress.steps
    collected, made, verified = steps["collect"], steps["adapt"], steps["verify"]
    decided, deployed = steps["decide"], steps["deploy"]
    return {
        "ok": True,
        "folder": str(held.folder),
        "session": collected["session"],
        "bundle": made["bundle"],
        "checksum": made["checksum"],
        "decoder_id": made["decoder_id"],
        "collect_s": collected["collect_s"],
        "trials": collected["trials"],
        "adapt_s": made["adapt_s"],
        "total_s": total_s,
        "r2": {name: one["r2"] for name, one in verified["decoders"].items()},
        "decided": decided["decided"],
        "reason": decided["reason"],
        "deployed": deployed["deployed"],
        "deployment": deployed,
        "recalibrated": steps["recalibrate"],
        "report": steps["report"]["report"],
    }


@contextmanager
def _face(auto: bool, clock: Clock) -> Iterator[Face]:
    if auto:
        yield AutoFace(clock)
        return
    from calibration.wizard.terminal import terminal_face

    with terminal_face(clock) as face:
        yield face


def _folder(under: Path, *, resume: bool) -> Path:
    """Today's folder; the newest with something to go on with, to resume; else one that is free."""
    today = datetime.now().astimezone().date().isoformat()
    if resume:
        begun = sorted(under.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime)
        if not begun:
            raise WizardError(f"nothing to resume under {under}; start without --resume")
        return begun[-1].parent
    n = 1
    while (path := under / (today if n == 1 else f"{today}-{n}")).joinpath(FILE).exists():
        n += 1
    return path


def _say(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")


def _told(result: dict[str, Any]) -> str:
    service = "in service" if result["deployed"] else "not in service"
    return f"{result['decoder_id']}: {result['decided']}ed, {service}. Report: {result['report']}"
