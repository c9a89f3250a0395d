"""`spikeloop calibrate --from-run`: when, of which recordings, and into which daemon."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from service.errors import ConfigError

NEWEST = 6
"""Of a folder of runs so many are taken."""
SHADOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line's wishes.

    Attributes:
        files: recordings, the newest last, folders of runs, and at most one config.
        base: the decoder that drove; None for the newest run's, or the config's.
        out: folder to write; None for one under the config's.
        at: time of day to wait for, HH:MM; "" to begin at once.
        control: the daemon that gets a better decoder; "" for none.
        keys: file of the client's keys.
        as_json: print one JSON object.
    """

    files: list[Path]
    base: Path | None
    out: Path | None
    at: str
    control: str
    keys: Path | None
    as_json: bool


def from_run(asked: Asked) -> int:
    """Make a decoder of recordings in which the subject drove, and put a better one in service."""
    from calibration.from_run.make import make_from_run
    from calibration.from_run.told import lines_of
    from calibration.wizard.config import CalibrateConfig, load_config
    from calibration.wizard.recording import reading_of
    from export.bundle import open_bundle
    from export.signing.signer import signer_of
    from service.errors import ExitCode
    from service.redecode.driven import session_of_driven_run
    from streams.clock import MonotonicClock

    configs = [file for file in asked.files if file.suffix == ".toml"]
    if len(configs) > 1 or len(configs) == len(asked.files):
        raise ConfigError("--from-run takes recordings, and at most one CONFIG.toml")
    config = load_config(configs[0]) if configs else CalibrateConfig()
    if asked.at:
        clock, wait_s = MonotonicClock(), seconds_until(asked.at, datetime.now().astimezone())
        _say(f"waiting until {asked.at}")
        clock.sleep_until(clock.now() + wait_s)
    recordings = recordings_in([file for file in asked.files if file not in configs])
    base = asked.base or _base_of(recordings[-1], config.calibration.base)
    # Before the work: a key that cannot be read is told at once.
    sign = signer_of(Path(config.sign.key) if config.sign.key else None)
    reading = reading_of(config, tuple(open_bundle(base).row_of_key))
    made = make_from_run(
        recordings,
        base,
        asked.out or Path(config.calibration.folder) / f"from-run-{recordings[-1].stem}",
        reading=reading,
        read_run=lambda path: session_of_driven_run(path, reading),
        body=config.behavior.body if configs else "",
        on_target=config.recalibrate.on_target,
        seed=config.calibration.seed,
        say=_say,
    )
    sign(made.bundle)
    stages: list[dict[str, Any]] = []
    if asked.control and not made.why_not:
        stages = _swapped(asked, made.bundle)
    told = made.as_json() | {"swapped": bool(stages), "stages": stages}
    for_people = lines_of(made, in_service=bool(stages))
    sys.stdout.write(json.dumps(told) + "\n" if asked.as_json else for_people)
    return ExitCode.BELOW_THRESHOLD if made.why_not else ExitCode.DONE


def _base_of(newest: Path, configured: str) -> Path:
    """Return the decoder that drove: the newest run's, or the config's."""
    from export.shipped import bundle_path
    from service.redecode.driven import decoder_of_run

    if newest.is_dir() and (found := decoder_of_run(newest)) is not None:
        return found
    if configured:
        return bundle_path(configured)
    raise ConfigError("say which decoder drove: --base BUNDLE")


def recordings_in(files: Sequence[Path]) -> list[Path]:
    """Put the newest runs with behaviour in the place of a folder of runs.

    Raises:
        ConfigError: a folder holds none.
    """
    from service.telemetry.recording.frames import BEHAVIOR_FILE, RUN_FOLDER

    found: list[Path] = []
    for file in files:
        held = sorted(file.iterdir()) if file.is_dir() else []
        runs = [one for one in held if RUN_FOLDER.fullmatch(one.name)]
        if not runs:
            found.append(file)
            continue
        driven = [
            run for run in runs if any(BEHAVIOR_FILE.fullmatch(one.name) for one in run.iterdir())
        ]
        if not driven:
            raise ConfigError(
                f"no run in {file} has its behaviour beside it: name the streams of cursor and "
                "targets under `[record] behavior` in the daemon's config"
            )
        found += driven[-NEWEST:]
    return found


def seconds_until(at: str, now: datetime) -> float:
    """Return the time until HH:MM comes next, seconds.

    Raises:
        ConfigError: it is no time of day.
    """
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", at):
        raise ConfigError(f"--at {at}: give a time of day, such as 04:30")
    hour, minute = map(int, at.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return (then - now).total_seconds()


def _swapped(asked: Asked, bundle: Path) -> list[dict[str, Any]]:
    from service.client import swap
    from service.errors import ServiceError
    from streams.wire.client import DaemonClient

    stages: list[dict[str, Any]] = []
    client = DaemonClient(asked.control, asked.keys)
    refused = swap(client, bundle, send=False, shadow_s=SHADOW_S, hold=False, tell=stages.append)
    if refused:
        raise ServiceError(f"the daemon refused {bundle}: {refused}")
    return stages


def _say(text: str) -> None:
    sys.stderr.write(f"spikeloop: {text}\n")
    sys.stderr.flush()
