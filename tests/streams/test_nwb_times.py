"""Sessions begin at their first sample; times that cannot be meant are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from streams.errors import LackingError, SessionError
from streams.sessions.choice import SessionChoice, TrialChoice, UnitChoice
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from tests.streams.foreign_nwb import (
    DURATION_S,
    add_series,
    add_table,
    add_trials,
    stamps,
    trains,
    wave,
    write,
)

VELOCITY = SessionChoice(behavior=("cursor_vel",))


def assert_same(session: Session, plain: Session) -> None:
    """The same recording, within a microsecond or what doubles of a large clock can hold."""
    assert session.duration_s == pytest.approx(plain.duration_s, abs=1e-5)
    np.testing.assert_allclose(session.spikes.t_us, plain.spikes.t_us, atol=2)
    np.testing.assert_array_equal(session.spikes.unit, plain.spikes.unit)
    one, other = session.signal("cursor_vel"), plain.signal("cursor_vel")
    np.testing.assert_allclose(one.t_s, other.t_s, atol=1e-6)
    np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("shift_s", [1.6e9, 7200.0, 86_400.0 * 3, -45.0, -7200.0, 1.0])
def test_a_session_begins_at_its_first_sample_wherever_the_clock_is(
    tmp_path: Path, shift_s: float
) -> None:
    plain = read_session(write(tmp_path / "a.nwb"), VELOCITY)
    session = read_session(write(tmp_path / "b.nwb", shift_s=shift_s), VELOCITY)
    assert_same(session, plain)
    assert float(session.provenance["begins_at_s"]) == shift_s
    assert float(plain.provenance["begins_at_s"]) == 0.0


def test_bins_keep_the_grid_of_the_files_samples(tmp_path: Path) -> None:
    """A first sample in the middle of a second must not move the bins of 20 ms."""
    session = read_session(write(tmp_path / "a.nwb", shift_s=1234.56), VELOCITY)
    assert float(session.provenance["begins_at_s"]) == 1234.0
    steps = session.signal("cursor_vel").t_s / 0.02
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


@pytest.mark.parametrize("first_s", [0.0, 0.9, -0.3])
def test_a_recording_that_begins_about_0_is_left_as_it_is(tmp_path: Path, first_s: float) -> None:
    session = read_session(write(tmp_path / "a.nwb", shift_s=first_s), VELOCITY)
    assert float(session.provenance["begins_at_s"]) == 0.0
    assert session.signal("cursor_vel").t_s[0] == first_s


def test_trials_count_from_the_same_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", shift_s=5000.0)
    with h5py.File(path, "r+") as file:
        edges = {"start_time": 5000.0 + np.arange(9.0), "stop_time": 5000.5 + np.arange(9.0)}
        add_table(file, "intervals/trials", 9, edges)
    trials = read_session(path, VELOCITY).trials
    assert trials is not None
    np.testing.assert_array_equal(trials.start_s, np.arange(9.0))


def test_what_is_not_used_does_not_say_where_a_session_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", shift_s=50.0)
    with h5py.File(path, "r+") as file:
        add_series(file, "acquisition/sync", wave(stamps()), stamps() * 2 + 20.0)
    assert read_session(path, VELOCITY).provenance["begins_at_s"] == "50.0"
    assert read_session(path).provenance["begins_at_s"] == "20.0"


def scaled_spikes(factor: float, whole: bool) -> list[np.ndarray]:
    scaled = [train * factor for train in trains()]
    return [np.floor(train) for train in scaled] if whole else scaled


@pytest.mark.parametrize("choice", [VELOCITY, SessionChoice()])
@pytest.mark.parametrize(
    ("factor", "whole", "unit", "line"),
    [
        (30_000, True, "samples", "units.ticks_per_s = 30000"),
        (24_414.0625, True, "samples", "units.ticks_per_s = 24414.1"),
        (1000, False, "milliseconds", "units.ticks_per_s = 1000"),
        (1000, True, "milliseconds", "units.ticks_per_s = 1000"),
        (1e6, False, "microseconds", r"units.ticks_per_s = 1e\+06"),
    ],
)
def test_spike_times_that_are_not_seconds_are_named_with_the_line_that_reads_them(
    tmp_path: Path, factor: float, whole: bool, unit: str, line: str, choice: SessionChoice
) -> None:
    path = write(tmp_path / "a.nwb", units=scaled_spikes(factor, whole))
    with pytest.raises(SessionError, match=f"look like {unit}.*{line}"):
        read_session(path, choice)


def test_the_line_reads_them(tmp_path: Path) -> None:
    plain = read_session(write(tmp_path / "a.nwb"), VELOCITY)
    path = write(tmp_path / "b.nwb", units=scaled_spikes(1000, whole=False))
    choice = SessionChoice(behavior=("cursor_vel",), units=UnitChoice(ticks_per_s=1000.0))
    assert_same(read_session(path, choice), plain)


def test_stamps_of_behaviour_in_milliseconds_are_named_and_read(tmp_path: Path) -> None:
    plain = read_session(write(tmp_path / "a.nwb"), VELOCITY)
    path = write(tmp_path / "b.nwb", series=False)
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), stamps() * 1000)
    with pytest.raises(SessionError, match=r"milliseconds.*behavior_ticks_per_s = 1000"):
        read_session(path, VELOCITY)
    choice = SessionChoice(behavior=("cursor_vel",), behavior_ticks_per_s=1000.0)
    assert_same(read_session(path, choice), plain)


def test_trials_in_milliseconds_are_named_and_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    starts = np.arange(9.0) * 3000.0
    with h5py.File(path, "r+") as file:
        edges = {"start_time": starts + 500.0, "stop_time": starts + 2500.0}
        add_table(file, "intervals/cues", 9, edges)
    by_name = SessionChoice(behavior=("cursor_vel",), trials=TrialChoice(table="cues"))
    with pytest.raises(SessionError, match=r"9 of 9 trials.*trials\.ticks_per_s = 1000"):
        read_session(path, by_name)
    in_ms = SessionChoice(
        behavior=("cursor_vel",), trials=TrialChoice(table="cues", ticks_per_s=1000.0)
    )
    trials = read_session(path, in_ms).trials
    assert trials is not None
    np.testing.assert_allclose(trials.start_s, np.arange(9.0) * 3.0 + 0.5)


def test_spikes_and_behaviour_of_two_clocks_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), stamps() + 1.6e9)
    with pytest.raises(SessionError, match="no time in common"):
        read_session(path, VELOCITY)


def stray(spikes: list[np.ndarray], i_unit: int, *at_s: float) -> list[np.ndarray]:
    spikes[i_unit] = np.sort(np.append(spikes[i_unit], at_s))
    return spikes


@pytest.mark.parametrize(
    ("spikes", "text"),
    [
        (stray(trains(), 2, 1e6), r"1 of 1201 spikes, of u2, lie at 1000000\.0"),
        (stray(trains(), 2, -9000.0), r"1 of 1201 spikes, of u2, lie at -9000\.0"),
        (stray(trains(), 0, 400.0), r"1 of 1201 spikes, of u0, lie at 400\.0"),
        ([*trains(9), trains(1)[0] * 20], r"of 3000 spikes, of u9, lie at"),
        ([*trains(30), trains(1)[0] + 4000.0], r"300 of 9300 spikes, of u30, lie at 40"),
    ],
)
def test_a_length_that_a_stray_spike_or_unit_decides_is_refused(
    tmp_path: Path, spikes: list[np.ndarray], text: str
) -> None:
    path = write(tmp_path / "a.nwb", units=spikes)
    with pytest.raises(SessionError, match=text) as raised:
        read_session(path, VELOCITY)
    assert "between_s = [0, 30]" in str(raised.value)
    session = read_session(
        path, SessionChoice(behavior=("cursor_vel",), between_s=(0.0, DURATION_S))
    )
    assert session.duration_s == pytest.approx(DURATION_S, abs=0.1)


def test_a_series_that_goes_on_long_after_the_spikes_is_refused_if_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        add_series(file, "acquisition/camera", wave(np.arange(0.0, 900.0, 0.5)), rate=2.0)
    with pytest.raises(SessionError, match=r"camera at 0\.0 to 899.*between_s = \[0, 30\]"):
        read_session(path, SessionChoice(behavior=("cursor_vel", "camera")))
    assert read_session(path, VELOCITY).duration_s == pytest.approx(DURATION_S, abs=0.1)
    everything = read_session(path)
    assert everything.duration_s == pytest.approx(DURATION_S, abs=0.1)
    assert "acquisition/camera" in everything.provenance["skipped"]


def test_one_trial_far_away_is_left_out_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        add_trials(file, 9, {})
        file["intervals/trials/stop_time"][4] = 1e7
    session = read_session(path, VELOCITY)
    assert session.trials is not None
    assert len(session.trials) == 8
    assert session.duration_s < 60
    assert "1 of 9 trials lie far" in session.provenance["skipped"]


def test_long_spikes_with_short_behaviour_are_no_fault(tmp_path: Path) -> None:
    """Sleep before and after a task of a tenth of the time is usual."""
    long = [np.sort(train * 20) for train in trains()]
    session = read_session(write(tmp_path / "a.nwb", units=long), VELOCITY)
    assert session.duration_s == pytest.approx(600.0, abs=2.0)


def unsort(spikes: list[np.ndarray]) -> list[np.ndarray]:
    spikes[1] = np.roll(spikes[1], 7)
    return spikes


def spoil(spikes: list[np.ndarray]) -> list[np.ndarray]:
    spikes[3][[4, 9]] = np.nan, np.inf
    return spikes


@pytest.mark.parametrize(
    ("change", "text", "n_spikes"),
    [
        (unsort, "1 spike times that step back, of u1, put in order", 1200),
        (spoil, "2 spike times that are not finite", 1198),
    ],
)
def test_spike_times_that_are_mended_are_named(
    tmp_path: Path,
    change: Callable[[list[np.ndarray]], list[np.ndarray]],
    text: str,
    n_spikes: int,
) -> None:
    session = read_session(write(tmp_path / "a.nwb", units=change(trains())), VELOCITY)
    assert text in session.provenance["skipped"]
    assert len(session.spikes) == n_spikes
    assert (np.diff(session.spikes.t_us) >= 0).all()


N = len(stamps())


@pytest.mark.parametrize(
    ("data", "t_s", "text"),
    [
        (
            wave(stamps()).T,
            stamps(),
            rf"{N} timestamps for 2 samples \(data of \(2, {N}\)\).*trans",
        ),
        (wave(stamps()), stamps()[:-5], rf"{N - 5} timestamps for {N} samples"),
        (wave(stamps())[:-5], stamps(), rf"{N} timestamps for {N - 5} samples"),
        (wave(stamps()), np.stack([stamps()] * 2, 1), rf"\({N}, 2\) timestamps"),
        (np.zeros((N, 2, 2)), stamps(), r"not numbers over time: float64 of \(1500, 2, 2\)"),
        (np.array([b"left"] * N), stamps(), "not numbers over time"),
        (wave(stamps()), np.full(N, np.nan), f"no finite timestamp among {N}"),
        (wave(stamps()), None, "neither timestamps nor a rate"),
    ],
)
def test_a_named_series_that_does_not_fit_together_says_how(
    tmp_path: Path, data: Any, t_s: Any, text: str
) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", data, t_s)
        add_series(file, "processing/behavior/hand_vel", wave(stamps()), stamps())
    with pytest.raises(SessionError, match=f"processing/behavior/cursor_vel .*{text}") as raised:
        read_session(path, VELOCITY)
    assert not isinstance(raised.value, LackingError)
    hand = read_session(path, SessionChoice(behavior=("hand_vel",)))
    assert len(hand.signal("hand_vel").t_s) == N
    with pytest.raises(SessionError, match=f"no behaviour 'cursor_vel'.*left out: .*{text}"):
        read_session(path).signal("cursor_vel")


def test_data_of_regular_rate_along_the_wrong_axis_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()).T, rate=50.0)
    with pytest.raises(SessionError, match=r"data of \(2, 1500\): is time the second axis"):
        read_session(path, VELOCITY)


def test_stamps_that_step_back_are_put_in_order_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    order = np.arange(N)
    order[[10, 11]] = 11, 10
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps())[order], stamps()[order])
    session = read_session(path, VELOCITY)
    np.testing.assert_array_equal(session.signal("cursor_vel").values, wave(stamps()))
    assert "1 timestamps that step back" in session.provenance["skipped"]


@pytest.mark.parametrize(
    ("factor", "whole", "ticks"),
    [(1000, False, "1000"), (30_000, True, r"30000"), (1e6, False, r"1e\+06")],
)
def test_times_that_are_all_in_other_units_are_named(
    tmp_path: Path, factor: float, whole: bool, ticks: str
) -> None:
    path = write(tmp_path / "a.nwb", units=scaled_spikes(factor, whole), series=False)
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), stamps() * factor)
    expected = (
        rf"all times look like .*units\.ticks_per_s = {ticks}, behavior_ticks_per_s = {ticks}"
    )
    with pytest.raises(SessionError, match=expected):
        read_session(path, VELOCITY)
    choice = SessionChoice(
        behavior=("cursor_vel",), units=UnitChoice(ticks_per_s=factor), behavior_ticks_per_s=factor
    )
    assert read_session(path, choice).duration_s == pytest.approx(DURATION_S, abs=0.1)


def test_a_regular_series_counted_in_milliseconds_is_named_and_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), rate=0.05)
    with pytest.raises(SessionError, match=r"milliseconds.*behavior_ticks_per_s = 1000"):
        read_session(path, VELOCITY)
    choice = SessionChoice(behavior=("cursor_vel",), behavior_ticks_per_s=1000.0)
    np.testing.assert_allclose(read_session(path, choice).signal("cursor_vel").t_s, stamps())


def test_one_stray_stamp_of_behaviour_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    t_s = stamps()
    t_s[-1] = 1e6
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), t_s)
    with pytest.raises(SessionError, match=r"1 of 1500 time stamps.*between_s = \[0, 30\]"):
        read_session(path, VELOCITY)
    choice = SessionChoice(behavior=("cursor_vel",), between_s=(0.0, 30.0))
    assert len(read_session(path, choice).signal("cursor_vel").t_s) == len(t_s) - 1


def test_spikes_on_two_clocks_ask_for_no_memory(tmp_path: Path) -> None:
    late = [train + 1.6e9 for train in trains()]
    halves = [np.append(one, other) for one, other in zip(trains(), late, strict=True)]
    path = write(tmp_path / "a.nwb", units=halves)
    with pytest.raises(SessionError, match=r"none for \d+ h between.*between_s = \[0, 30\] or"):
        read_session(path, VELOCITY)


def test_recordings_put_end_to_end_are_refused(tmp_path: Path) -> None:
    """As one unit of DANDI 000003: its times start again at 0 halfway."""
    spikes = trains()
    spikes[1] = np.append(spikes[1][:200], spikes[1][:150])
    path = write(tmp_path / "a.nwb", units=spikes)
    with pytest.raises(SessionError, match=r"spike times of u1 start again at 0\.\d after"):
        read_session(path, VELOCITY)
    without = SessionChoice(behavior=("cursor_vel",), units=UnitChoice(where="id != 1"))
    assert read_session(path, without).unit_keys == ("u0", "u2", "u3")


def test_spike_times_in_any_order_are_put_in_order_and_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = write(tmp_path / "a.nwb", units=[rng.permutation(train) for train in trains()])
    plain = read_session(write(tmp_path / "b.nwb"), VELOCITY)
    session = read_session(path, VELOCITY)
    np.testing.assert_array_equal(session.spikes.t_us, plain.spikes.t_us)
    assert "spike times that step back, of u0, u1, u2, u3, put" in session.provenance["skipped"]


def test_stamps_that_lost_their_precision_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", shift_s=1e7, series=False)
    with h5py.File(path, "r+") as file:
        rounded = (stamps() + 1e7).astype(np.float32)
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), rounded)
    with pytest.raises(SessionError, match=r"31 different timestamps among 1500.*float32"):
        read_session(path, VELOCITY)


def test_stamps_that_repeat_now_and_then_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    t_s = stamps()
    t_s[[100, 200]] = t_s[[99, 199]]
    with h5py.File(path, "r+") as file:
        add_series(file, "processing/behavior/cursor_vel", wave(stamps()), t_s)
    session = read_session(path, VELOCITY)
    assert "2 timestamps that repeat" in session.provenance["skipped"]


def test_spike_times_that_lost_their_precision_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", shift_s=1.6e9)
    with h5py.File(path, "r+") as file:
        rounded = file["units/spike_times"][:].astype(np.float32)
        del file["units/spike_times"]
        file["units/spike_times"] = rounded
    with pytest.raises(
        SessionError, match=r"are float32, which at 1600000000 s tells .* 1.3e\+02 s"
    ):
        read_session(path, VELOCITY)
