import numpy as np
import pytest

from streams.errors import SimulationError
from streams.sessions.session import Session
from streams.simulation.openloop import record_open_loop


@pytest.fixture(scope="module")
def session() -> Session:
    return record_open_loop(1, 3, 2.0)


def test_the_same_arguments_give_the_same_session(session: Session) -> None:
    again = record_open_loop(1, 3, 2.0)
    np.testing.assert_array_equal(session.spikes.t_us, again.spikes.t_us)
    np.testing.assert_array_equal(session.spikes.unit, again.spikes.unit)
    for path, signal in session.behavior.items():
        np.testing.assert_array_equal(signal.values, again.behavior[path].values)


def test_another_session_of_the_day_has_the_same_units_and_other_reaches(session: Session) -> None:
    other = record_open_loop(1, 3, 2.0, seed=1)
    assert other.unit_keys == session.unit_keys
    one, two = (s.signal("cursor_position").values for s in (session, other))
    assert not np.array_equal(one, two)


def test_names_follow_subject_and_day(session: Session) -> None:
    assert session.id == "sim-1/2026-01-04/open-loop"
    assert session.unit_keys[11].startswith("ch12/u")
    assert session.provenance["day"] == "3"


def test_spikes_are_sorted_by_stamp_and_unit(session: Session) -> None:
    spikes = session.spikes
    np.testing.assert_array_equal(np.lexsort((spikes.unit, spikes.t_us)), np.arange(len(spikes)))
    assert spikes.t_us[-1] <= session.duration_s * 1e6


def test_position_is_the_integral_of_velocity(session: Session) -> None:
    velocity, position = session.signal("cursor_velocity"), session.signal("cursor_position")
    assert np.diff(velocity.t_s) == pytest.approx(0.01)
    moved = np.cumsum(velocity.values[:-1] * 0.01, axis=0)
    shift = position.values[1:] - position.values[0]
    assert np.abs(moved - shift).max() < 0.5


def test_the_hand_reaches_nearly_every_target_in_about_a_second(session: Session) -> None:
    trials = session.trials
    assert trials is not None
    assert trials.columns["success"].mean() > 0.95
    assert 0.9 < np.median(trials.stop_s - trials.start_s) < 2.0
    assert np.all(trials.stop_s[:-1] <= trials.start_s[1:])


def test_reaches_have_natural_speeds(session: Session) -> None:
    speed = np.linalg.norm(session.signal("cursor_velocity").values, axis=1)
    assert 20.0 < np.percentile(speed, 99) < 50.0


def test_the_target_signal_agrees_with_the_trials(session: Session) -> None:
    trials, target = session.trials, session.signal("target_position")
    assert trials is not None
    middle_s = (trials.start_s + trials.stop_s) / 2.0
    np.testing.assert_allclose(target.at(middle_s), trials.columns["target"], atol=1e-9)


def test_spikes_lead_the_hand_by_about_100_ms(session: Session) -> None:
    velocity = session.signal("cursor_velocity").values
    n = len(velocity)
    counts = np.zeros((n, len(session.unit_keys)))
    np.add.at(counts, (np.minimum(session.spikes.t_us // 10_000, n - 1), session.spikes.unit), 1)
    lead = range(-10, 40)
    explained = []
    for i in lead:
        rows = slice(50, n - 50)
        x = counts[rows] - counts[rows].mean(axis=0)
        y = velocity[50 + i : n - 50 + i]
        weights = np.linalg.lstsq(x, y - y.mean(axis=0), rcond=None)[0]
        explained.append(float(np.var(x @ weights)))
    assert 0.06 <= lead[int(np.argmax(explained))] * 0.01 <= 0.15


def test_too_short_a_session_is_refused() -> None:
    with pytest.raises(SimulationError, match="too short"):
        record_open_loop(1, 1, 0.01)
