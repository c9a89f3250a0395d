"""The closed loop in simulated time: a linear decoder of another session drives the cursor."""

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from streams.sessions.session import Session
from streams.simulation.cortex import UPHEAVAL_EVERY_DAYS, MotorCortex
from streams.simulation.live import shuffled
from streams.simulation.openloop import record_open_loop
from streams.simulation.subject import ReachTask, Subject, TaskBehavior, TaskName, targets_of
from streams.simulation.user import TICK_S, User

HOP_US = 20_000
KEEP = np.exp(-HOP_US * 1e-6 / np.array([0.04, 0.12, 0.4]))[:, None]
N_UNITS = 96
TICKS_PER_HOP = round(HOP_US * 1e-6 / TICK_S)


@dataclass(frozen=True, eq=False)
class LinearDecoder:
    """Ridge regression on counts smoothed over three time constants."""

    mean: np.ndarray
    weights: np.ndarray
    offset: np.ndarray

    def velocity(self, traces: np.ndarray) -> np.ndarray:
        return (traces.reshape((*traces.shape[:-2], -1)) - self.mean) @ self.weights + self.offset


def traces_of(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, units) smoothed counts and the (n, 2) velocity at the end of each hop."""
    n = int(session.duration_s * 1e6 // HOP_US)
    counts = np.zeros((n, N_UNITS))
    np.add.at(
        counts, (np.minimum((session.spikes.t_us - 1) // HOP_US, n - 1), session.spikes.unit), 1
    )
    traces, trace = np.empty((n, 3, N_UNITS)), np.zeros((3, N_UNITS))
    for i in range(n):
        trace = KEEP * trace + (1.0 - KEEP) * counts[i]
        traces[i] = trace
    velocity = session.signal("cursor_velocity").at((np.arange(n) + 1) * HOP_US * 1e-6)
    return traces[50:-1], velocity[50:-1]


@cache
def fitted(subject: int, day: int) -> LinearDecoder:
    traces, velocity = traces_of(record_open_loop(subject, day, 6.0))
    x = traces.reshape(len(traces), -1)
    mean, offset = x.mean(axis=0), velocity.mean(axis=0)
    gram = (x - mean).T @ (x - mean) + 10.0 * np.eye(x.shape[1])
    return LinearDecoder(mean, np.linalg.solve(gram, (x - mean).T @ (velocity - offset)), offset)


@cache
def acquired_per_30_s(
    decoder: LinearDecoder,
    subject: int,
    day: int,
    *,
    shuffle: bool = False,
    task: TaskName = "centre-out",
    seconds: float = 40.0,
    n_late_ticks: int = 3,
) -> float:
    """Targets acquired per 30 s when each decode arrives some ticks of 5 ms after its hop."""
    reach = ReachTask(targets_of(task, 9))
    live = Subject(
        MotorCortex(subject, day, N_UNITS, seed=9),
        TaskBehavior(User(9, "decoder"), reach, "decoder"),
    )
    key_of = shuffled(N_UNITS, 9) if shuffle else np.arange(N_UNITS)
    trace, counts = np.zeros((3, N_UNITS)), np.zeros(N_UNITS)
    velocity, coming = (0.0, 0.0), deque[tuple[int, tuple[float, float]]]()
    for i_tick in range(1, round(seconds / TICK_S) + 1):
        if coming and coming[0][0] == i_tick:
            velocity = coming.popleft()[1]
        _, spikes = live.step(velocity)
        np.add.at(counts, key_of[spikes.unit], 1)
        if i_tick % TICKS_PER_HOP == 0:
            trace = KEEP * trace + (1.0 - KEEP) * counts
            counts[:] = 0.0
            x, y = decoder.velocity(trace).tolist()
            coming.append((i_tick + n_late_ticks, (x, y)))
    return reach.n_acquired * 30.0 / seconds


def per_30_s(decoder_day: int, day: int, *, shuffle: bool = False) -> float:
    """Mean over two subjects."""
    return float(
        np.mean(
            [
                acquired_per_30_s(fitted(subject, decoder_day), subject, day, shuffle=shuffle)
                for subject in (1, 2)
            ]
        )
    )


def r2(decoder: LinearDecoder, session: Session) -> np.ndarray:
    traces, velocity = traces_of(session)
    errors = ((decoder.velocity(traces) - velocity) ** 2).sum(axis=0)
    return 1.0 - errors / ((velocity - velocity.mean(axis=0)) ** 2).sum(axis=0)


@pytest.mark.parametrize("subject", [1, 2])
def test_a_linear_decoder_explains_most_but_by_far_not_all(subject: int) -> None:
    score = r2(fitted(subject, 1), record_open_loop(subject, 1, 3.0, seed=4))
    assert np.all((score > 0.6) & (score < 0.85))


def test_a_good_decoder_acquires_and_shuffled_units_hardly_do() -> None:
    good = per_30_s(1, 1)
    assert good >= 12.0
    assert per_30_s(1, 1, shuffle=True) <= good / 5.0


def test_random_targets_are_reached_too() -> None:
    decoder = fitted(1, 1)
    good = acquired_per_30_s(decoder, 1, 1, task="random")
    assert good >= 10.0
    assert acquired_per_30_s(decoder, 1, 1, task="random", shuffle=True) <= good / 5.0


def test_yesterdays_decoder_works_and_one_of_forty_days_ago_does_not() -> None:
    assert per_30_s(1, 2) >= 8.0
    assert per_30_s(1, 40) <= per_30_s(1, 2) / 2.0


def test_on_the_day_of_an_upheaval_yesterdays_decoder_fails() -> None:
    day = UPHEAVAL_EVERY_DAYS
    assert per_30_s(day - 1, day) <= per_30_s(day - 1, day - 1) / 2.0


def test_the_user_copes_with_60_ms_more_delay_but_pays_for_it() -> None:
    fast = acquired_per_30_s(fitted(2, 1), 2, 1)
    slow = acquired_per_30_s(fitted(2, 1), 2, 1, n_late_ticks=15)
    assert fast / 2.0 <= slow < fast
