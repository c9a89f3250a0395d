"""The recorder, in its own process, and sessions made from its recordings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from calibration.errors import STREAM, WizardError
from calibration.wizard.config import CalibrateConfig
from calibration.wizard.run import CalibrationRun
from calibration.wizard.ui import Page
from export.bundle import open_bundle
from streams.sessions.convert.convert import Reading, convert
from streams.sessions.session import Session
from streams.sessions.xdf.reading import Recording

POLL_S = 0.2
# Enough to flush a morning's recording to a slow disk.
ENDS_WITHIN_S = 30.0


def streams_to_record(config: CalibrateConfig, cues_name: str = "") -> list[str]:
    """Name the streams as `spikeloop record` takes them: `TYPE:NAME@HOST`.

    Args:
        config: the wizard's.
        cues_name: stem of the built-in task's streams; "" where the lab's own task runs.
    """
    spikes, markers, behavior = config.spikes, config.markers, config.behavior
    streams = [(spikes.type, spikes.name, spikes.hostname)]
    if cues_name:
        streams.append((markers.type, f"{cues_name}-markers", ""))
        streams.append((behavior.type, f"{cues_name}-cursor", ""))
    else:
        streams.append((markers.type, markers.name, markers.hostname))
        streams.append((behavior.type, behavior.name, behavior.hostname))
    return [f"{kind}:{name}{'@' if host else ''}{host}" for kind, name, host in streams]


def reading_of(config: CalibrateConfig, keys: tuple[str, ...]) -> Reading:
    """Say what in a recording means what."""
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


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream in the recorder's account; its clock is None where it was not measured."""

    type: str
    samples: int
    clock_offset_s: float | None
    clock_uncertainty_s: float | None


class RecorderStatus(BaseModel):
    """The recorder's account, as far as the wizard reads it.

    Attributes:
        streams: by name.
        lost: what could not be recorded, a sentence each.
    """

    streams: dict[str, StreamStatus]
    lost: list[str] = []


class Recorder:
    """Records the config's streams to a file, until it is stopped.

    Args:
        run: the calibration.
        path: XDF to write.
        streams: which, as `spikeloop record` takes them.
    """

    def __init__(self, run: CalibrationRun, path: Path, streams: list[str]) -> None:
        self._status = path.with_suffix(".status.json")
        self._err = path.with_suffix(".err")
        # An old status would read as if the recorder had found the streams.
        self._status.unlink(missing_ok=True)
        chosen = [argument for stream in streams for argument in ("--stream", stream)]
        command = [
            *run.command, "record", str(path), *chosen, "--wait", str(run.config.collect.wait_s),
            "--budget", str(run.config.spikes.budget_per_s), "--status", str(self._status),
            "--stamps", run.config.spikes.stamps, "--until-stdin-ends",
        ]  # fmt: skip
        # Threads of its own would take cores from the daemon.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with path.with_suffix(".out").open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # ends with us, and the recorder with it
                stdout=out,
                stderr=err,
                env=environment,
                # ctrl-c in the terminal is for the wizard; the recorder ends its file in order.
                start_new_session=True,
            )

    @property
    def is_recording(self) -> bool:
        """True once the first samples are about to come.

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
        lines = self._err.read_text(errors="replace").strip().splitlines()
        text = lines[-1] if lines else f"the recorder ended with code {code}"
        text = text.removeprefix("spikeloop: ")
        kept = "" if code == STREAM else " What was recorded is kept."
        return WizardError(f"{text.rstrip('.')}.{kept}", code or STREAM)

    def status(self) -> RecorderStatus:
        """The recorder's own account."""
        return RecorderStatus.model_validate_json(self._status.read_text())

    def stop(self) -> None:
        """End the recording in order.

        Raises:
            WizardError: it was refusing a stream just then; nothing is kept.
        """
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # The process may have ended between the last check and the end of its input.
        if self._process.returncode == STREAM:
            raise self._ended(STREAM)


@contextmanager
def recording_to(
    run: CalibrationRun, path: Path, page: Page, cues_name: str = ""
) -> Iterator[Recorder]:
    """Record to a file; entered once the first samples are about to come.

    Args:
        run: the calibration.
        path: XDF to write.
        page: shown until then.
        cues_name: as for `streams_to_record`.

    Raises:
        WizardError: the recorder ended by itself.
    """
    recorder = Recorder(run, path, streams_to_record(run.config, cues_name))
    try:
        while not recorder.is_recording:
            run.show(page, POLL_S)
        yield recorder
    finally:
        recorder.stop()


def session_of_recordings(run: CalibrationRun, paths: list[Path]) -> Session:
    """Join recordings to a session.

    Raises:
        StreamsError: they hold none.
    """
    # Units that are silent today keep their place beside those that fire.
    keys = tuple(unit.key for unit in open_bundle(run.base).manifest.units)
    return convert(paths, run.session_id, reading_of(run.config, keys), needs_trials=True)


def save_session(session: Session, out: Path) -> None:
    """Write a session as NWB.

    Raises:
        WizardError: the disk refuses.
    """
    from streams.sessions.nwb.writer import write_session  # brings pynwb

    try:
        write_session(session, out)
    except OSError as err:
        raise WizardError(f"cannot write {out}: {err}; free some space and go on") from err


def newest_s(recording: Recording) -> float:
    """Find the newest stamp in a recording, on the recorder's clock."""
    ends = [float(np.max(one.t_s)) for one in recording.streams.values() if len(one)]
    return max(ends, default=0.0)


def errors_as_told_here(err: Exception) -> str:
    """Name the wizard's config section instead of the daemon's."""
    return str(err).replace("[input]", "[spikes]")
