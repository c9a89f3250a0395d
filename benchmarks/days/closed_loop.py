"""A subject in closed loop with a bundle, in simulated time: no sockets, faster than real time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import open_bundle
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior as Signal
from streams.sessions.session import Session, Trials
from streams.simulation.control import guided
from streams.simulation.cortex import MotorCortex
from streams.simulation.subject import CENTRE, ReachTask, TaskBehavior, Tick, ramp, targets_of
from streams.simulation.user import STILL, TICK_S, Point, User
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


@dataclass(slots=True)
class _Log:
    ticks: list[Tick] = field(default_factory=list)
    spikes: list[SpikeBatch] = field(default_factory=list)


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
    bundle = open_bundle(bundle_path)
    backend = open_cpu(bundle)
    hop_ticks = round(bundle.manifest.hop_s / TICK_S)
    cortex = MotorCortex(subject, day, 96, seed=seed)
    rows = np.array([bundle.row_of_key.get(key, -1) for key in cortex.unit_keys], np.int32)
    tokenizer = Tokenizer(round(bundle.manifest.bin_s * 1e6), rows)
    task = ReachTask(targets_of("centre-out", seed))
    behavior = TaskBehavior(User(seed, "decoder"), task, "decoder")
    velocity: Point = (0.0, 0.0)
    shaped = np.zeros(2)
    coming: deque[tuple[int, Point]] = deque()
    plans, cursors = [STILL], [CENTRE]
    log = _Log()
    n_ticks = round(seconds / TICK_S)
    for i_tick in range(1, n_ticks + 1):
        if coming and coming[0][0] == i_tick:
            velocity = coming.popleft()[1]
        share = assist[min(i_tick * len(assist) // n_ticks, len(assist) - 1)]
        tick = behavior.step(guided(velocity, behavior.cursor, task.target, share))
        log.ticks.append(tick)
        plans.append(tick.plan)
        cursors.append(tick.cursor)
        if i_tick % hop_ticks == 0:
            # Nothing that is decoded acts before: the neurons fire for all of a hop at once.
            spikes = cortex.advance(ramp(np.array(plans)), ramp(np.array(cursors)))
            log.spikes.append(spikes)
            window, _ = tokenizer.cut(spikes, round(i_tick * TICK_S * 1e6), 0.0)
            decoded = backend.step(window, LEAD_S)["velocity"]
            shaped = SMOOTHING * shaped + (1.0 - SMOOTHING) * np.asarray(decoded, np.float64)
            coming.append((i_tick + LATE_TICKS, (float(shaped[0]), float(shaped[1]))))
            plans, cursors = plans[-1:], cursors[-1:]
    session = _session(log, cortex.unit_keys, task, subject, day)
    return Driven(session, task.n_acquired, seconds)


def joined(batches: Sequence[SpikeBatch]) -> SpikeBatch:
    """Several batches as one."""
    return SpikeBatch(*(np.concatenate([getattr(b, n) for b in batches]) for n in _FIELDS))


_FIELDS = ("t_us", "unit", "count")


def _session(log: _Log, keys: tuple[str, ...], task: ReachTask, subject: int, day: int) -> Session:
    spikes = joined(log.spikes)
    order = canonical_order(spikes.t_us, spikes.unit)
    kept = log.ticks[1::2]
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
        duration_s=log.ticks[-1].t_s,
    )
