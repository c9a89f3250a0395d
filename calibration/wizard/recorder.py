"""The recorder as a process of its own, and what it has brought so far."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from calibration.wizard.config import CalibrateConfig
from calibration.wizard.errors import STREAM, WizardError
from calibration.wizard.run import Run, said, start_command
from streams.sessions.convert.convert import Reading
from streams.sessions.xdf.reading import Recording

STARTS_WITHIN_S = 90.0
ENDS_WITHIN_S = 30.0


def wanted(config: CalibrateConfig, cues_name: str = "") -> list[str]:
    """The streams to record, as `spikeloop record` takes them: `TYPE:NAME@HOST`."""
    spikes, markers, behavior = config.spikes, config.markers, config.behavior
    streams = [(spikes.type, spikes.name, spikes.hostname)]
    if cues_name:
        streams.append((markers.type, f"{cues_name}-markers", ""))
        streams.append((behavior.type, f"{cues_name}-cursor", ""))
    else:
        streams.append((markers.type, markers.name, markers.hostname))
        streams.append((behavior.type, behavior.name, behavior.hostname))
    return [
        f"{kind}:{name}@{hostname}" if hostname else f"{kind}:{name}"
        for kind, name, hostname in streams
    ]


def reading_of(config: CalibrateConfig, keys: tuple[str, ...]) -> Reading:
    """What in a recording means what; `convert_arguments` says the same."""
    return Reading(
        spikes=config.spikes.type,
        array=config.spikes.array,
        columns=config.spikes.columns,
        ignore_units=config.spikes.ignore_units,
        known_keys=keys,
        markers=config.markers.type,
        trial_start=config.markers.trial_start,
        trial_stop=config.markers.trial_stop,
        body=config.behavior.body,
        channels=config.behavior.channels,
    )


def convert_arguments(config: CalibrateConfig) -> list[str]:
    """What in a recording means what, as `spikeloop convert` takes it."""
    spikes = config.spikes
    return [
        "--spikes", spikes.type, "--markers", config.markers.type, "--array", spikes.array,
        f"--columns={','.join(spikes.columns)}",
        f"--ignore-units={','.join(map(str, spikes.ignore_units))}",
        f"--trial-start={config.markers.trial_start}", f"--trial-stop={config.markers.trial_stop}",
        "--body", config.behavior.body,
        *(f"--channel={label}" for label in config.behavior.channels),
    ]  # fmt: skip


class Recorder:
    """Records the streams of the config to a file, until it is stopped.

    Args:
        run: the calibration.
        path: XDF to write.
        streams: which, as `spikeloop record` takes them.
    """

    def __init__(self, run: Run, path: Path, streams: list[str]) -> None:
        self.path = path
        self._run = run
        self._status = path.with_suffix(".status.json")
        self._err = path.with_suffix(".err")
        self._status.unlink(missing_ok=True)
        chosen = [argument for stream in streams for argument in ("--stream", stream)]
        self._process: subprocess.Popen[bytes] = start_command(
            "record", str(path), *chosen, "--wait", str(run.config.collect.wait_s),
            "--budget", str(run.config.spikes.budget_per_s), "--status", str(self._status),
            "--stamps", run.config.spikes.stamps, "--until-stdin-ends",
            out=path.with_suffix(".out"), err=self._err,
        )  # fmt: skip

    @property
    def is_recording(self) -> bool:
        """Whether the first samples are about to come.

        Raises:
            WizardError: the recorder ended.
        """
        self.check()
        return self._status.exists()

    def check(self) -> None:
        """Raise when the recorder has ended by itself.

        Raises:
            WizardError: with what it said.
        """
        code = self._process.poll()
        if code is not None:
            raise self._ended(code)

    def _ended(self, code: int) -> WizardError:
        told = said(self._err) or f"the recorder ended with code {code}"
        kept = "" if code == STREAM else " What was recorded is kept."
        return WizardError(f"{told.rstrip('.')}.{kept}", code or STREAM)

    def status(self) -> dict[str, Any]:
        """The recorder's own account."""
        content: dict[str, Any] = json.loads(self._status.read_text())
        return content

    def stop(self) -> None:
        """End the recording in order.

        Raises:
            WizardError: it was refusing a stream just then; nothing is kept of it.
        """
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode == STREAM:
            raise self._ended(STREAM)


def newest_s(recording: Recording) -> float:
    """The newest stamp of any stream, on the recorder's clock."""
    ends = [float(np.max(one.t_s)) for one in recording.streams.values() if len(one)]
    return max(ends, default=0.0)
