"""A step's recording: the recorder in its own process, and the built-in task beside it."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel
from rich.text import Text

from calibration.errors import WizardError
from calibration.wizard.config import CalibrateConfig, CuesSection
from calibration.wizard.meant import Driven
from calibration.wizard.run import CalibrationRun
from calibration.wizard.ui import Page
from export.bundle import open_bundle
from streams.clock import Clock
from streams.exit_codes import ExitCode
from streams.lsl.outlets import MarkerOutlet, PositionOutlet
from streams.sessions.convert.convert import Reading, convert
from streams.sessions.session import Session
from streams.sessions.xdf.reading import Recording

POLL_S = 0.2
# Enough to flush a morning's recording to a slow disk.
ENDS_WITHIN_S = 30.0
STEP_S = 0.01
LABELS = ("cursor_x", "cursor_y", "target_x", "target_y")
COLUMNS, ROWS = 41, 19
Point = tuple[float, float]


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
        kept = "" if code == ExitCode.STREAM else " What was recorded is kept."
        return WizardError(f"{text.rstrip('.')}.{kept}", code or ExitCode.STREAM)

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
        if self._process.returncode == ExitCode.STREAM:
            raise self._ended(ExitCode.STREAM)


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


def session_of_recordings(
    run: CalibrationRun, paths: list[Path], driven: Driven | None = None
) -> Session:
    """Join recordings to a session, with what was meant where the subject drove.

    Raises:
        StreamsError: they hold none.
    """
    # Units that are silent today keep their place beside those that fire.
    keys = tuple(open_bundle(run.base).row_of_key)
    reading = reading_of(run.config, keys)
    each = driven.labelled if driven else as_it_is
    return convert(paths, run.session_id, reading, needs_trials=True, each=each)


def as_it_is(part: Session) -> Session:
    """Return a recording's session where nobody drove."""
    return part


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


class Cues:
    """Targets on a circle, each followed by the centre; the cursor leads the way.

    The subject imagines or follows the cursor's movement, a minimum-jerk reach; markers, cursor and
    target leave on LSL as a laboratory's own task would send them.

    Args:
        config: `[cues]`.
        clock: LSL's.
        name: stem for the streams; "-markers" and "-cursor" are appended.
        seed: for the targets' order.
    """

    def __init__(self, config: CuesSection, clock: Clock, name: str, seed: int) -> None:
        self.name = name
        self.cursor: Point = (0.0, 0.0)
        self.target: Point = (0.0, 0.0)
        self.n_trials = 0
        self._config, self._clock = config, clock
        self._targets = _targets(config, np.random.default_rng([seed, 17]))
        self._markers = MarkerOutlet(f"{name}-markers", f"{name}-markers")
        self._position = PositionOutlet(f"{name}-cursor", f"{name}-cursor", LABELS, "cm")
        self._from: Point = (0.0, 0.0)
        self._t_begin_s: float | None = None
        self._t_step_s = clock.now()

    def show_for(self, seconds: float) -> None:
        """Go on with the task for so long."""
        t_end_s = self._clock.now() + seconds
        # After a pause the task goes on, it does not catch up.
        self._t_step_s = max(self._t_step_s, self._clock.now() - 2 * STEP_S)
        while self._t_step_s < t_end_s:
            self._t_step_s += STEP_S
            self._clock.sleep_until(self._t_step_s)
            self._step(self._t_step_s)

    def drawn(self) -> Text:
        """Cursor and target as text."""
        cells = [[" "] * COLUMNS for _ in range(ROWS)]
        for point, mark in ((self.target, "O"), (self.cursor, "+")):
            half = self._config.reach_cm * 1.2
            column = round((point[0] / half + 1) / 2 * (COLUMNS - 1))
            row = round((1 - point[1] / half) / 2 * (ROWS - 1))
            cells[min(max(row, 0), ROWS - 1)][min(max(column, 0), COLUMNS - 1)] = mark
        text = Text("\n".join("".join(row) for row in cells), style="dim")
        text.highlight_regex(r"O", "bold yellow")
        text.highlight_regex(r"\+", "bold green")
        return text

    def close(self) -> None:
        """Take the streams off the network."""
        self._markers.close()
        self._position.close()

    def _step(self, t_s: float) -> None:
        if self._t_begin_s is None:
            self._begin(t_s)
        elif t_s - self._t_begin_s >= self._config.move_s + self._config.hold_s:
            self._markers.push(f"trial_stop i={self.n_trials} success=1", t_s)
            self.n_trials += 1
            self._begin(t_s)
        share = min(1.0, (t_s - (self._t_begin_s or t_s)) / self._config.move_s)
        # Minimum jerk (Flash and Hogan 1985).
        smooth = share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
        self.cursor = (
            self._from[0] + smooth * (self.target[0] - self._from[0]),
            self._from[1] + smooth * (self.target[1] - self._from[1]),
        )
        self._position.push([*self.cursor, *self.target], t_s)

    def _begin(self, t_s: float) -> None:
        self._from, self.target = self.target, next(self._targets)
        self._t_begin_s = t_s
        x, y = self.target
        self._markers.push(f"trial_start i={self.n_trials} x={x:.3f} y={y:.3f}", t_s)


@contextmanager
def builtin_cues(run: CalibrationRun) -> Iterator[Cues | None]:
    """Run the built-in task where the config asks for it; None where the lab's own runs."""
    if not run.config.cues.builtin:
        yield None
        return
    name = f"spikeloop-cues-{os.getpid()}"
    cues = Cues(run.config.cues, run.clock, name, run.config.calibration.seed)
    try:
        yield cues
    finally:
        cues.close()


def _targets(config: CuesSection, rng: np.random.Generator) -> Iterator[Point]:
    while True:
        for i in rng.permutation(config.n_targets):
            angle = 2.0 * math.pi * float(i) / config.n_targets
            yield config.reach_cm * math.cos(angle), config.reach_cm * math.sin(angle)
            yield (0.0, 0.0)
