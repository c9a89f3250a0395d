"""Simulated open-loop sessions: the hand moves the cursor, all is recorded."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from streams.errors import SimulationError
from streams.messages import Float64s, SpikeBatch
from streams.sessions.session import Behavior, Session, Trials
from streams.simulation.cortex import MotorCortex
from streams.simulation.subject import (
    ReachTask,
    TaskBehavior,
    TaskName,
    Tick,
    Trial,
    ramp,
    targets_of,
)
from streams.simulation.user import TICK_S, Point, Style, User
from streams.spikes.kernels.numpy_kernels import canonical_order

VELOCITY = "processing/behavior/BehavioralTimeSeries/cursor_velocity"
POSITION = "processing/behavior/Position/cursor_position"
TARGET = "processing/behavior/Position/target_position"
_FIRST_DAY = date(2026, 1, 1)
_TICKS_PER_SAMPLE = 2
_TICKS_PER_PIECE = 200


_NAMES: dict[Style, str] = {"reach": "open-loop", "steer": "open-loop-steering"}


def record_open_loop(
    subject_seed: int,
    day: int,
    minutes: float,
    n_units: int = 96,
    task: TaskName = "centre-out",
    seed: int = 0,
    style: Style = "reach",
) -> Session:
    """A session under hand control, faster than real time; the same arguments, the same session.

    Args:
        subject_seed: which subject.
        day: the subject's day.
        minutes: how long.
        n_units: how many units the array sees, lost ones too.
        task: which targets.
        seed: the session on that day.
        style: "reach" for ballistic reaches, "steer" for continuous movement by somebody who
            tracks, as one does under a decoder's control.

    Returns:
        Velocity (cm/s), position and target (cm) at 100 Hz; trials with target and success.

    Raises:
        SimulationError: no such subject, or less than a second.
    """
    n_ticks = round(minutes * 60.0 / TICK_S)
    if n_ticks < _TICKS_PER_PIECE:
        raise SimulationError(f"a session of {minutes} minutes is too short; give at least 0.02")
    cortex = MotorCortex(subject_seed, day, n_units, seed=seed)
    behavior_seed = int(np.random.default_rng([subject_seed, day, seed, 5]).integers(2**31))
    reach = ReachTask(targets_of(task, behavior_seed))
    behavior = TaskBehavior(User(behavior_seed, "hand", style), reach, "hand")
    ticks = [behavior.step() for _ in range(n_ticks)]
    date_of_day = (_FIRST_DAY + timedelta(days=day)).isoformat()
    return Session(
        id=f"sim-{subject_seed}/{date_of_day}/{_NAMES[style]}",
        unit_keys=cortex.unit_keys,
        spikes=_fire(cortex, ticks),
        behavior=_signals(ticks),
        trials=_trials(reach.trials),
        duration_s=n_ticks * TICK_S,
        provenance=_provenance(subject_seed, day, n_units, task, seed),
    )


def _fire(cortex: MotorCortex, ticks: list[Tick]) -> SpikeBatch:
    """Join the session's spikes, in the order (stamp, unit)."""
    still = np.zeros((1, 2))
    plan = np.concatenate([still, _points([tick.plan for tick in ticks])])
    cursor = np.concatenate([still, _points([tick.cursor for tick in ticks])])
    pieces = []
    for i in range(0, len(ticks), _TICKS_PER_PIECE):
        part = slice(i, i + _TICKS_PER_PIECE + 1)
        pieces.append(cortex.advance(ramp(plan[part]), ramp(cursor[part])))
    t_us = np.concatenate([piece.t_us for piece in pieces])
    unit = np.concatenate([piece.unit for piece in pieces])
    order = canonical_order(t_us, unit)
    return SpikeBatch(t_us[order], unit[order], np.ones(len(order), np.int32))


def _signals(ticks: list[Tick]) -> dict[str, Behavior]:
    kept = ticks[_TICKS_PER_SAMPLE - 1 :: _TICKS_PER_SAMPLE]
    t_s = np.array([tick.t_s for tick in kept])
    return {
        VELOCITY: Behavior(t_s, _points([tick.velocity for tick in kept]), "cm/s"),
        POSITION: Behavior(t_s, _points([tick.cursor for tick in kept]), "cm"),
        TARGET: Behavior(t_s, _points([tick.target for tick in kept]), "cm"),
    }


def _points(points: list[Point | None] | list[Point]) -> Float64s:
    return np.array([(np.nan, np.nan) if p is None else p for p in points], np.float64)


def _trials(trials: list[Trial]) -> Trials:
    return Trials(
        start_s=np.array([trial.t_start for trial in trials]),
        stop_s=np.array([trial.t_stop for trial in trials]),
        columns={
            "target": np.array([trial.target for trial in trials]).reshape(-1, 2),
            "success": np.array([trial.success for trial in trials], np.bool_),
        },
    )


def _provenance(
    subject_seed: int, day: int, n_units: int, task: TaskName, seed: int
) -> dict[str, str]:
    return {
        "source": "spikeloop simulated subject",
        "subject_seed": str(subject_seed),
        "day": str(day),
        "n_units": str(n_units),
        "task": task,
        "session_seed": str(seed),
    }
