"""A subject in closed loop with a bundle, in simulated time: no sockets, faster than real time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle, open_bundle
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior as Signal
from streams.sessions.session import Session, Trials
from streams.simulation.control import guided
from streams.simulation.cortex import MotorCortex
from streams.simulation.subject import CENTRE, ReachTask, TaskBehavior, Tick, ramp, targets_of
from streams.simulation.user import STILL, TICK_S, Control, Point, User
from streams.spikes.kernels.numpy_kernels import canonical_order
from streams.spikes.tokenizer import Tokenizer

LEAD_S, SMOOTHING = 0.1, 0.5
LATE_TICKS = 3
PLACE = "processing/behavior"
FIRST_DAY = date(2026, 1, 1)


@dataclass(slots=True)
class Driven:
    """What happened while the subject drove.

    Attributes:
        session: with velocity, position and target as a recording of it would hold them.
        n_acquired: targets.
        seconds: how long.
    """

    session: Session
    n_acquired: int
    seconds: float

    @property
    def per_min(self) -> float:
        """Targets acquired a minute."""
        return 60.0 * self.n_acquired / self.seconds


class ClosedLoop:
    """A subject, its task, and a decoder whose tables may change while it drives.

    Args:
        bundle: the decoder.
        subject: which simulated subject.
        day: of the subject.
        seed: for this session's noise and targets.
        control: what moves the cursor at first.

    Attributes:
        task: counts the targets.
        assist: share in the cursor's velocity that leads straight to the target.
        control: what moves the cursor.
    """

    def __init__(
        self, bundle: DecoderBundle, subject: int, day: int, seed: int, control: Control
    ) -> None:
        self.assist, self.control, self._seed, self._day = 0.0, control, seed, (subject, day)
        self._backend = open_cpu(bundle)
        self._hop_ticks = round(bundle.manifest.hop_s / TICK_S)
        self._cortex = MotorCortex(subject, day, 96, seed=seed)
        self.keys = self._cortex.unit_keys
        self._tokenizer = Tokenizer(round(bundle.manifest.bin_s * 1e6), np.zeros(0, np.int32))
        self.use(bundle.tables, bundle.row_of_key)
        self.task = ReachTask(targets_of("centre-out", seed))
        self._behavior = TaskBehavior(User(seed, control), self.task, control)
        self._velocity: Point = STILL
        self._shaped = np.zeros(2)
        self._coming: deque[tuple[int, Point]] = deque()
        self._plans, self._cursors = [STILL], [CENTRE]
        self._ticks: list[Tick] = []
        self._spikes: list[SpikeBatch] = []

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return len(self._ticks) * TICK_S

    def use(self, tables: Mapping[str, np.ndarray], row_of_key: Mapping[str, int]) -> None:
        """Decode by other tables from the next bin on, as the daemon does."""
        self._backend.set_tables(tables)
        self._tokenizer.row_of = np.array([row_of_key.get(key, -1) for key in self.keys], np.int32)

    def switch(self, control: Control) -> None:
        """From now on another control moves the cursor, with plans made for it."""
        if control != self.control:
            self.control = control
            self._behavior.switch(User(self._seed, control), control)

    def step(self, *, engaged: bool = True) -> None:
        """Live through one tick."""
        i_tick = len(self._ticks) + 1
        if self._coming and self._coming[0][0] == i_tick:
            self._velocity = self._coming.popleft()[1]
        moved = guided(self._velocity, self._behavior.cursor, self.task.target, self.assist)
        tick = self._behavior.step(moved, engaged=engaged)
        self._ticks.append(tick)
        self._plans.append(tick.plan)
        self._cursors.append(tick.cursor)
        if i_tick % self._hop_ticks == 0:
            self._decode(i_tick)

    def _decode(self, i_tick: int) -> None:
        # Nothing that is decoded acts before: the neurons fire for all of a hop at once.
        spikes = self._cortex.advance(ramp(np.array(self._plans)), ramp(np.array(self._cursors)))
        self._spikes.append(spikes)
        window, _ = self._tokenizer.cut(spikes, round(i_tick * TICK_S * 1e6), 0.0)
        decoded = self._backend.step(window, LEAD_S)["velocity"]
        self._shaped = SMOOTHING * self._shaped + (1.0 - SMOOTHING) * np.asarray(decoded, float)
        velocity = (float(self._shaped[0]), float(self._shaped[1]))
        self._coming.append((i_tick + LATE_TICKS, velocity))
        self._plans, self._cursors = self._plans[-1:], self._cursors[-1:]

    def session(self) -> Session:
        """Return what a recording of it would hold by now."""
        return _session(self._ticks, self._spikes, self.keys, self.task, *self._day)


def drive(
    bundle_path: Path,
    subject: int,
    day: int,
    seconds: float,
    *,
    seed: int,
    assist: Sequence[float] = (0.0,),
) -> Driven:
    """Let the subject drive with a decoder, with less assistance in each equal part of the time."""
    loop = ClosedLoop(open_bundle(bundle_path), subject, day, seed, "decoder")
    n_ticks = round(seconds / TICK_S)
    for i_tick in range(1, n_ticks + 1):
        loop.assist = assist[min(i_tick * len(assist) // n_ticks, len(assist) - 1)]
        loop.step()
    return Driven(loop.session(), loop.task.n_acquired, seconds)


def joined(batches: Sequence[SpikeBatch]) -> SpikeBatch:
    """Several batches as one."""
    return SpikeBatch(*(np.concatenate([getattr(b, n) for b in batches]) for n in _FIELDS))


_FIELDS = ("t_us", "unit", "count")


def _session(
    ticks: Sequence[Tick],
    batches: Sequence[SpikeBatch],
    keys: tuple[str, ...],
    task: ReachTask,
    subject: int,
    day: int,
) -> Session:
    spikes = joined(batches)
    order = canonical_order(spikes.t_us, spikes.unit)
    kept = ticks[1::2]
    t_s = np.array([tick.t_s for tick in kept])
    cursor = np.array([tick.cursor for tick in kept])
    target = np.array([(np.nan, np.nan) if k.target is None else k.target for k in kept])
    return Session(
        id=f"sim-{subject}/{FIRST_DAY + timedelta(days=day)}/driven",
        unit_keys=keys,
        spikes=SpikeBatch(*(getattr(spikes, name)[order] for name in _FIELDS)),
        behavior={
            f"{PLACE}/BehavioralTimeSeries/cursor_velocity": Signal(
                t_s, np.gradient(cursor, t_s, axis=0), "cm/s"
            ),
            f"{PLACE}/Position/cursor_position": Signal(t_s, cursor, "cm"),
            f"{PLACE}/Position/target_position": Signal(t_s, target, "cm"),
        },
        trials=Trials(
            np.array([trial.t_start for trial in task.trials]),
            np.array([trial.t_stop for trial in task.trials]),
        ),
        duration_s=ticks[-1].t_s,
        provenance={"lsl_time_of_start": "0.0"},
    )
