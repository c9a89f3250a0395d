"""The process that makes and scores decoders while the wizard goes on collecting."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from calibration.adaptation.adapt import write_adapted
from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.closed_form import ClosedForm
from calibration.errors import CalibrationError, WizardError
from calibration.prequential.sequence import PredictThenLearn, Schedule
from calibration.prequential.traces import CurvePoint, ExpectedGain, Recent, recent, second_half
from calibration.wizard.behavior import Pace, pace_of, without_gaps
from calibration.wizard.collected import BaseNeeds
from calibration.wizard.config import CalibrateConfig
from calibration.wizard.meant import Driven
from calibration.wizard.recording import as_it_is, reading_of
from calibration.wizard.results import DecoderScore
from calibration.wizard.run import CalibrationRun
from calibration.wizard.scoring import scores_of
from calibration.wizard.ui import Page
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from export.signing.signer import signer_of
from streams.errors import StreamsError
from streams.sessions.convert.convert import convert
from streams.sessions.session import Session

# Its numbers are shown; the verification draws more.
N_SHOWN = 200
# A daemon may run on the same machine, and comes first.
POLITELY = 5
ENDS_WITHIN_S = 5.0
# Where the subject is to drive, trials are scored before there is enough for the first that drives.
FIRST_S = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Recordings to go on with.

    Attributes:
        paths: XDF files, in order.
        traces: where to write what was scored, with the last trials too; None while more comes.
        driven: when the subject drove; None where it did not.
    """

    paths: Sequence[Path]
    traces: Path | None = None
    driven: Driven | None = None


@dataclass(frozen=True, slots=True)
class Learnt:
    """The sequence so far.

    Attributes:
        n_decoders: made.
        seconds: that the newest was made from.
        n_trials: scored, each by the decoder that was made before it.
        curve: R2 after each decoder.
        gain: expected of more data; None while too early to say.
        scores: of each decoder that is compared, on the second half's trials.
        refused: why no decoder could be made of the newest data, "" where one could.
        newest: the newest decoder's bundle; None where none is written.
        recent: the score of the newest trials.
        pace: the subject's, as long as it did not drive; None where it cannot be known.
        no_pace: why it cannot.
    """

    n_decoders: int = 0
    seconds: float = 0.0
    n_trials: int = 0
    curve: Sequence[CurvePoint] = ()
    gain: ExpectedGain | None = None
    scores: dict[str, DecoderScore] = field(default_factory=dict)
    refused: str = ""
    newest: Path | None = None
    recent: Recent = field(default_factory=Recent)
    pace: Pace | None = None
    no_pace: str = ""

    def more_helps(self, config: CalibrateConfig) -> bool | None:
        """Return True while more data help; None while it is too early to say."""
        if self.gain is None or self.seconds < config.least_s:
            return None
        return self.gain.most >= config.least_gain


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that the process must know.

    Attributes:
        config: the wizard's.
        base: yesterday's decoder.
        session_id: the session's.
        steps: folder for the bundle of each decoder; None where none is to be written.
    """

    config: CalibrateConfig
    base: Path
    session_id: str
    steps: Path | None = None


def options_of(config: CalibrateConfig) -> Options:
    """The adaptation's options."""
    told = config.calibration
    return Options(
        same_array=told.same_array,
        unfreeze=False,
        follow_drift=told.follow_drift,
        seed=told.seed,
        on_progress=None,
    )


def has_closed_form(base: Path) -> bool:
    """Return True where the decoder holds what the closed form needs."""
    try:
        ClosedForm(open_bundle(base))
    except CalibrationError:
        return False
    return True


def is_closed_form(run: CalibrationRun) -> bool:
    """Return True where decoders are made in closed form."""
    return run.config.learn.way == "closed-form" and has_closed_form(run.base)


class Learner:
    """Makes and scores decoders in a process of its own; nothing here waits for it.

    Args:
        run: the calibration.
    """

    def __init__(self, run: CalibrationRun) -> None:
        self.learnt, self.phase, self.is_busy = Learnt(), "", False
        context = get_context("spawn")
        self._ours, theirs = context.Pipe()
        steps = run.folder / "decoder" / "steps" if run.config.drive.enabled else None
        task = Task(run.config, run.base, run.session_id, steps)
        self._process = context.Process(target=_work, args=(theirs, task), daemon=True)
        with _one_thread():
            self._process.start()
        # Its own end alone must hold the pipe open, or the process would outlive the wizard.
        theirs.close()

    def ask(
        self, paths: Sequence[Path], traces: Path | None = None, driven: Driven | None = None
    ) -> None:
        """Have it go on with the recordings; nothing while it is busy."""
        if not self.is_busy:
            self._ours.send(Asked(paths, traces, driven))
            self.is_busy = True

    def hear(self, wait_s: float = 0.0) -> None:
        """Take what it has said.

        Raises:
            WizardError: the process is gone, or failed.
        """
        try:
            while self._ours.poll(wait_s):
                wait_s, said = 0.0, self._ours.recv()
                if isinstance(said, Learnt):
                    self.learnt, self.phase, self.is_busy = said, "", False
                elif isinstance(said, WizardError):
                    raise said
                else:
                    self.phase = str(said)
        except (EOFError, OSError) as err:
            raise WizardError(
                "the process that makes decoders has ended; what was recorded is kept, go on with "
                "--resume"
            ) from err

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.join(0.1 if self.is_busy else ENDS_WITHIN_S)
        # It may be in the middle of a decoder that nobody wants any more.
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(ENDS_WITHIN_S)


@contextmanager
def learner_of(run: CalibrationRun) -> Iterator[Learner | None]:
    """A learner where decoders are made while collecting; None where they are made afterwards."""
    if not is_closed_form(run):
        if run.config.learn.way == "closed-form":
            line = "the base decoder has no closed form: today's is made afterwards, by gradient"
            run.show(Page("collect", "Collecting cued trials", line, line))
        yield None
        return
    learner = Learner(run)
    try:
        yield learner
    finally:
        learner.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have a process started now calculate on one core: the daemon needs the others."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection, task: Task) -> None:
    """Answer until the wizard closes the pipe, or dies."""
    # ctrl-c in the terminal is for the wizard.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(POLITELY)
    bundle = open_bundle(task.base)
    needs, learn = BaseNeeds.of(bundle), task.config.learn
    drives = task.config.drive.enabled
    schedule = Schedule(min(learn.first_s, FIRST_S) if drives else learn.first_s, learn.every_s)
    steps = Steps(bundle, task) if task.steps else None
    on_made = steps.write if steps else _keep_nothing
    sequence = PredictThenLearn(bundle, options_of(task.config), schedule, pipe.send, on_made)
    try:
        while True:
            asked: Asked = pipe.recv()
            try:
                pipe.send("reading what came")
                session = _session_of(asked, task, needs)
                sequence.update(session, is_over=asked.traces is not None)
                learnt = _learnt(sequence, asked.traces)
                pipe.send(learnt if steps is None else steps.told(learnt, sequence, asked, session))
            # A recording that has hardly begun is told of by the wizard, which reads it too.
            except StreamsError as err:
                pipe.send(Learnt(refused=str(err)))
            except (CalibrationError, ExportError) as err:
                pipe.send(WizardError(str(err)))
    # Closed, or closed with an answer on the way that nobody has read.
    except (EOFError, ConnectionError):
        return


class Steps:
    """Writes each decoder's bundle, for a daemon that is to have its tables.

    Args:
        base: the decoder that they are made from.
        task: the process'.
    """

    def __init__(self, base: DecoderBundle, task: Task) -> None:
        self._base, self._config, self._folder = base, task.config, task.steps or Path()
        self._sign = signer_of(Path(key) if (key := task.config.sign.key) else None)
        self._newest: Path | None = None

    def write(self, data: CalibrationData, found: Adapted) -> None:
        """Write the newest decoder; steps of a wizard that was killed keep their numbers."""
        n = 1
        while (path := self._folder / f"step-{n:03d}").exists():
            n += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        write_adapted(path, self._base, data, found, self._config.calibration.seed)
        self._sign(path)
        self._newest = path

    def told(
        self, learnt: Learnt, sequence: PredictThenLearn, asked: Asked, session: Session
    ) -> Learnt:
        """Add what driving needs to know."""
        config, pace, no_pace = self._config, None, ""
        if asked.driven is None:
            try:
                pace = pace_of(session, config.behavior.body)
            except WizardError as err:
                no_pace = str(err)
        score = recent(sequence.newest_scored, config.drive.recent_trials)
        return replace(learnt, newest=self._newest, recent=score, pace=pace, no_pace=no_pace)


def _keep_nothing(data: CalibrationData, found: Adapted) -> None:
    """Each decoder is scored, and no more."""


def _session_of(asked: Asked, task: Task, needs: BaseNeeds) -> Session:
    reading = reading_of(task.config, needs.unit_keys)
    each = asked.driven.labelled if asked.driven else as_it_is
    whole = convert(asked.paths, task.session_id, reading, each=each)
    return without_gaps(whole, needs.gaps(whole))


def _learnt(sequence: PredictThenLearn, path: Path | None) -> Learnt:
    traces, scores = sequence.traces, {}
    if traces is not None:
        if path is not None:
            traces.save(path)
        scores = scores_of(second_half(traces), 0, N_SHOWN)[0]
    return Learnt(
        n_decoders=sequence.n_made,
        seconds=sequence.newest_s,
        n_trials=0 if traces is None else traces.n_trials,
        curve=tuple(sequence.curve),
        gain=sequence.gain,
        scores=scores,
        refused=sequence.refused,
    )
