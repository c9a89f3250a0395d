"""One morning in simulated time, by the wizard's own parts: sequence, score, floor and labels."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.days.closed_loop import ClosedLoop
from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.calibration_data import CalibrationData, prepare
from calibration.prequential.sequence import PredictThenLearn, Schedule
from calibration.prequential.traces import recent
from calibration.wizard.behavior import Pace, pace_of
from calibration.wizard.config import CalibrateConfig, CollectSection, DriveSection, LearnSection
from calibration.wizard.driving import Drives, who_drives
from calibration.wizard.learner import FIRST_S, Learnt
from calibration.wizard.meant import Driven
from export.bundle import DecoderBundle
from streams.simulation.user import TICK_S

Way = Literal["closed-form", "gradient"]


@dataclass(frozen=True, slots=True)
class Takes:
    """Times that the live wizard takes, see `docs/calibration.md`.

    Attributes:
        begin_s: from its start to the first trial.
        step_s: from the look that finds a due trial to the swap of the step.
        deploy_s: from the end of collecting to the decoder in service, by way of the shadow.
        gradient_s: for a decoder by steps of gradient, before that.
    """

    begin_s: float = 10.0
    step_s: float = 2.0
    deploy_s: float = 12.0
    gradient_s: float = 7.0


@dataclass(slots=True)
class Morning:
    """What happened.

    Attributes:
        acquired_s: when each target was acquired by a decoder, seconds since the wizard's start.
        drives: who drove from when on: seconds, by, assistance, R2 of the newest trials.
        enough_s: when there was enough.
        first_s: when the first decoder of today drove.
    """

    acquired_s: list[float] = field(default_factory=list)
    drives: list[tuple[float, str, float, float]] = field(default_factory=list)
    enough_s: float = math.inf
    first_s: float = math.inf

    def as_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return asdict(self)


class Wizard:
    """The wizard over a subject in simulated time.

    Args:
        bundle: yesterday's decoder.
        loop: the subject, in open loop.
        drive: the floor and the assistance; None for the wizard that deploys at the end.
        takes: times.
        seed: of the draws.
        way: how decoders are made.
    """

    def __init__(
        self, bundle: DecoderBundle, loop: ClosedLoop, drive: DriveSection | None, takes: Takes,
        seed: int, way: Way,
    ) -> None:  # fmt: skip
        self._bundle, self._loop, self._drive, self._takes = bundle, loop, drive, takes
        learn = LearnSection(way=way)
        self._by_gradient = way == "gradient"
        first_s = min(learn.first_s, FIRST_S) if drive else learn.first_s
        self._options = Options(True, False, True, seed, None)
        self._collect = CollectSection()
        self._config = CalibrateConfig(learn=learn, drive=drive or DriveSection())
        self._sequence = PredictThenLearn(
            bundle, self._options, Schedule(first_s, learn.every_s), on_made=self._made
        )
        self._newest: tuple[CalibrationData, Adapted] | None = None
        self._spans: list[tuple[float, float]] = []
        self._pace: Pace | None = None
        self._drives, self.morning = Drives("task"), Morning()
        self._t_free_s, self._ready = 0.0, False
        self._t_in_service_s = math.inf

    def look(self) -> None:
        """Do what is due: each second of the subject."""
        now_s = self._loop.now_s
        if now_s >= self._t_in_service_s:
            self._serve(Drives("today"))
            self._t_in_service_s = math.inf
        if now_s < self._t_free_s:
            return
        if self._ready:
            self._ready = False
            self._follow()
        if math.isinf(self.morning.enough_s):
            if self._by_gradient:
                self._learn_afterwards(now_s)
            else:
                self._update(now_s)

    def _update(self, now_s: float) -> None:
        n_before, session = self._sequence.n_made, self._loop.session()
        if self._spans and self._pace is not None:
            on_target = DriveSection().on_target
            session = Driven(self._spans, self._pace, "cursor", on_target).labelled(session)
        self._sequence.update(session)
        learnt = Learnt(seconds=self._sequence.newest_s, gain=self._sequence.gain)
        n_trials = len(self._loop.task.trials)
        if learnt.more_helps(self._config) is False and n_trials >= self._collect.fewest_trials:
            self.morning.enough_s = self._takes.begin_s + now_s
            self._t_in_service_s = now_s + self._takes.deploy_s
        if self._sequence.n_made > n_before:
            self._t_free_s, self._ready = now_s + self._takes.step_s, True

    def _learn_afterwards(self, now_s: float) -> None:
        """Learn from the first seconds, as the last ones are held out to verify with."""
        if now_s < self._collect.learn_s + self._collect.verify_s:
            return
        from calibration.adaptation.gradient.streaming import adapt_streaming

        data = prepare(self._bundle, self._loop.session(), self._collect.learn_s, None, None)
        self._newest = data, adapt_streaming(self._bundle, data, self._options)
        self.morning.enough_s = self._takes.begin_s + now_s
        self._t_in_service_s = now_s + self._takes.gradient_s + self._takes.deploy_s

    def _made(self, data: CalibrationData, found: Adapted) -> None:
        self._newest = data, found

    def _follow(self) -> None:
        if self._drive is None:
            return
        score = recent(self._sequence.newest_scored, self._drive.recent_trials)
        wanted = who_drives(score, self._drive, self._drives)
        if wanted.by != "task" and self._pace is None:
            self._pace = pace_of(self._loop.session(), "cursor")
        self._serve(wanted, score.today)

    def _serve(self, drives: Drives, r2: float = math.nan) -> None:
        loop, t_s = self._loop, self._takes.begin_s + self._loop.now_s
        if drives.by == "today" and self._newest is not None:
            data, found = self._newest
            loop.use(found.tables, {key: i for i, key in enumerate(data.session.unit_keys)})
            self.morning.first_s = min(self.morning.first_s, t_s)
        elif drives.by == "yesterday":
            loop.use(self._bundle.tables, self._bundle.row_of_key)
        is_driven, was_driven = drives.by != "task", self._drives.by != "task"
        if is_driven and not was_driven:
            self._spans.append((loop.now_s, math.inf))
        elif was_driven and not is_driven:
            self._spans[-1] = self._spans[-1][0], loop.now_s
        loop.switch("decoder" if is_driven else "hand")
        loop.assist = drives.assist if is_driven else 0.0
        self._drives = drives
        self.morning.drives.append((t_s, drives.by, drives.assist, r2))


def live(
    bundle: DecoderBundle,
    subject: int,
    day: int,
    seed: int,
    *,
    drive: DriveSection | None,
    seconds: float,
    takes: Takes,
    way: Way = "closed-form",
) -> Morning:
    """Live through a morning; times count from the wizard's start.

    Args:
        bundle: yesterday's decoder.
        subject: which simulated subject.
        day: of the subject.
        seed: of noise and targets.
        drive: see `Wizard`.
        seconds: since the wizard's start.
        takes: times that the wizard takes.
        way: how decoders are made.
    """
    loop = ClosedLoop(bundle, subject, day, seed, "hand")
    wizard = Wizard(bundle, loop, drive, takes, seed, way)
    n_acquired, each_look = 0, round(1.0 / TICK_S)
    for i_tick in range(round((seconds - takes.begin_s) / TICK_S)):
        # Between collecting and the shadow's end the task rests, as the wizard asks it to.
        is_over = not math.isinf(wizard.morning.enough_s)
        loop.step(engaged=drive is not None or loop.control == "decoder" or not is_over)
        if loop.task.n_acquired > n_acquired and loop.control == "decoder":
            wizard.morning.acquired_s.append(takes.begin_s + loop.now_s)
        n_acquired = loop.task.n_acquired
        if (i_tick + 1) % each_look == 0:
            wizard.look()
    return wizard.morning
