"""A replay on a clock that the test owns: stamps, pace, counts, stalls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.clock import ManualClock
from streams.errors import SessionError
from streams.messages import Float64s, Int32s, SpikeBatch
from streams.sessions.nwb.writer import write_session
from streams.sessions.reading import read_session
from streams.sessions.replay.feeds import (
    BlockGrid,
    Feed,
    Pace,
    counts_feed,
    marker_feed,
    samples_feed,
    spike_feed,
)
from streams.sessions.replay.player import (
    ReplayProgress,
    channel_labels,
    chosen_range_us,
    replay,
    run_replay,
)
from streams.sessions.session import Behavior, Session, Trials

T0_S = 81_234.5
BLOCK_S = 0.005
RECORDINGS = Path(__file__).parents[3] / "shared" / "data"


class StallingClock(ManualClock):
    """Oversleeps by the given times, one after the other, then by nothing."""

    def __init__(self, stalls_s: list[float]) -> None:
        super().__init__(T0_S - 1.0)
        self.stalls_s = stalls_s

    def sleep_until(self, t_s: float) -> None:
        super().sleep_until(t_s + (self.stalls_s.pop() if self.stalls_s else 0.0))


class Recorder:
    """Keeps what is sent, and when, by the clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[float, float, Any]] = []

    def note(self, t_s: float, what: Any) -> None:
        self.sent.append((self.clock.now(), t_s, what))

    @property
    def stamps_s(self) -> list[float]:
        return [t_s for _, t_s, _ in self.sent]

    @property
    def values(self) -> list[Any]:
        return [what for _, _, what in self.sent]

    def nothing_came_early(self) -> bool:
        return all(now_s >= t_s for now_s, t_s, _ in self.sent)


class SpikeRecorder(Recorder):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.keep_alives_s: list[float] = []

    def push(self, t_s: Float64s, key_index: Int32s, complete_until_s: float | None = None) -> None:
        for one_s, key in zip(t_s.tolist(), key_index.tolist(), strict=True):
            self.note(one_s, key)
        if complete_until_s is not None:
            self.keep_alives_s.append(complete_until_s)


class CountsRecorder(Recorder):
    def push(self, counts: Int32s, t_s: float) -> None:
        assert counts.dtype == np.int32
        self.note(t_s, counts.tolist())


class SamplesRecorder(Recorder):
    def push_many(self, values: Float64s, t_s: Float64s) -> None:
        for one_s, value in zip(t_s.tolist(), values.tolist(), strict=True):
            self.note(one_s, value)


class MarkerRecorder(Recorder):
    def push(self, text: str, t_s: float) -> None:
        self.note(t_s, text)


def spikes_of(t_us: list[int], units: list[int] | None = None) -> SpikeBatch:
    unit = np.array(units if units is not None else [0] * len(t_us), np.int32)
    return SpikeBatch(np.array(t_us, np.int64), unit, np.ones(len(t_us), np.int32))


def session_of(spikes: SpikeBatch, behavior: dict[str, Behavior] | None = None) -> Session:
    end_s = float(spikes.t_us[-1]) * 1e-6 if len(spikes) else 0.0
    return Session("s/2026-01-01/n", ("u0", "u5"), spikes, behavior or {}, None, end_s)


SPIKES = st.lists(st.tuples(st.integers(-20_000, 400_000), st.integers(0, 2)), max_size=60).map(
    lambda spikes: spikes_of([t for t, _ in sorted(spikes)], [u for _, u in sorted(spikes)])
)
STALLS = st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.3]), max_size=20)


@given(SPIKES, STALLS, st.sampled_from([1.0, 0.5, 20.0]), st.integers(-2, 3))
def test_every_spike_is_sent_once_in_order_after_its_stamp(
    spikes: SpikeBatch, stalls: list[float], speed: float, edge: int
) -> None:
    clock = StallingClock(stalls)
    recorder = SpikeRecorder(clock)
    pace = Pace(T0_S, edge * 50_000, 350_000, speed)
    feed = spike_feed(recorder, spikes, BLOCK_S, pace)
    assert replay([feed], pace, clock)
    inside = (spikes.t_us >= pace.start_us) & (spikes.t_us <= pace.stop_us)
    assert recorder.values == spikes.unit[inside].tolist()
    assert feed.n_sent == inside.sum()
    file_s = spikes.t_us[inside] * 1e-6
    offsets_s = np.array(recorder.stamps_s) * 1.0 - file_s / speed
    assert np.ptp(offsets_s) < 1e-9 if len(offsets_s) else True
    assert recorder.nothing_came_early()


def test_spikes_leave_in_the_first_block_that_ends_after_them() -> None:
    clock = ManualClock(T0_S)
    recorder = SpikeRecorder(clock)
    pace = Pace(T0_S, 0, 100_000)
    replay([spike_feed(recorder, spikes_of([1, 4_000, 6_000, 99_000]), BLOCK_S, pace)], pace, clock)
    sent_ms = [round((now_s - T0_S) * 1e3, 6) for now_s, _, _ in recorder.sent]
    assert sent_ms == [5.0, 5.0, 10.0, 100.0]


def test_every_block_ends_with_a_keep_alive_whether_spikes_come_or_not() -> None:
    clock = ManualClock(T0_S)
    recorder = SpikeRecorder(clock)
    pace = Pace(T0_S, 0, 2_000_000, 2.0)
    replay([spike_feed(recorder, spikes_of([100_000]), BLOCK_S, pace)], pace, clock)
    blocks_s = T0_S + BLOCK_S * np.arange(1, round(1.0 / BLOCK_S) + 1)
    np.testing.assert_allclose(recorder.keep_alives_s, blocks_s, atol=1e-9)


def by_hand(spikes: SpikeBatch, end_us: int, bin_us: int) -> list[int]:
    counts = [0, 0, 0]
    for t_us, unit in zip(spikes.t_us.tolist(), spikes.unit.tolist(), strict=True):
        if end_us - bin_us < t_us <= end_us:
            counts[unit] += 1
    return counts


@given(SPIKES, STALLS, st.integers(-60_000, 120_000), st.sampled_from([20_000, 50_000]))
def test_counts_are_those_of_whole_bins_on_edges_of_the_file(
    spikes: SpikeBatch, stalls: list[float], start_us: int, bin_us: int
) -> None:
    clock = StallingClock(stalls)
    recorder = CountsRecorder(clock)
    pace = Pace(T0_S, start_us, 333_333)
    feed = counts_feed(recorder, spikes, 3, bin_us, pace)
    assert replay([feed], pace, clock)
    ends_us = [
        end
        for end in range(-200_000, 400_000, bin_us)
        if end - bin_us >= start_us and end <= pace.stop_us
    ]
    assert recorder.values == [by_hand(spikes, end, bin_us) for end in ends_us]
    np.testing.assert_allclose(
        recorder.stamps_s, [T0_S + (end - start_us) * 1e-6 for end in ends_us], rtol=0, atol=1e-9
    )
    assert recorder.nothing_came_early()
    assert feed.n_spikes == sum(map(sum, recorder.values))


def test_counts_leave_when_their_bin_ends_not_a_block_later() -> None:
    clock = ManualClock(T0_S)
    recorder, other = CountsRecorder(clock), SpikeRecorder(clock)
    pace = Pace(T0_S, 0, 1_000_000)
    feeds: list[Feed] = [
        spike_feed(other, spikes_of([]), 0.007, pace),
        counts_feed(recorder, spikes_of([]), 1, 50_000, pace),
    ]
    replay(feeds, pace, clock)
    assert [now_s for now_s, _, _ in recorder.sent] == recorder.stamps_s
    assert len(recorder.sent) == 20


@given(STALLS, st.sampled_from([1.0, 4.0]))
def test_behaviour_keeps_its_own_stamps(stalls: list[float], speed: float) -> None:
    clock = StallingClock(stalls)
    recorder = SamplesRecorder(clock)
    t_s = np.arange(40) / 30.0
    signal = Behavior(t_s, np.column_stack((t_s, -t_s)), "cm")
    pace = Pace(T0_S, 200_000, 1_000_000, speed)
    feed = samples_feed(recorder, signal, BLOCK_S, pace)
    assert replay([feed], pace, clock)
    inside = t_s[(t_s >= 0.2) & (t_s <= 1.0)]
    assert recorder.values == [[t, -t] for t in inside.tolist()]
    np.testing.assert_allclose(recorder.stamps_s, T0_S + (inside - 0.2) / speed, rtol=0, atol=1e-9)
    assert recorder.nothing_came_early()


def test_trials_become_markers_in_order_and_unknown_ends_none() -> None:
    clock = ManualClock(T0_S)
    recorder = MarkerRecorder(clock)
    trials = Trials(np.array([0.5, 2.0, 9.0]), np.array([2.0, math.nan, 9.5]))
    pace = Pace(T0_S, 0, 5_000_000, 2.0)
    replay([marker_feed(recorder, trials, pace)], pace, clock)
    assert recorder.values == ["trial_start 0", "trial_start 1", "trial_stop 0"]
    assert recorder.stamps_s == [T0_S + 0.25, T0_S + 1.0, T0_S + 1.0]
    assert [now_s for now_s, _, _ in recorder.sent] == recorder.stamps_s


def test_all_streams_of_a_replay_share_one_constant() -> None:
    clock = ManualClock(T0_S)
    pace = Pace(T0_S, -50_000, 1_000_000)
    times_us = [-20_000, 0, 500_000, 1_000_000]
    spikes, samples, markers = SpikeRecorder(clock), SamplesRecorder(clock), MarkerRecorder(clock)
    t_s = np.array(times_us) * 1e-6
    feeds: list[Feed] = [
        spike_feed(spikes, spikes_of(times_us), BLOCK_S, pace),
        samples_feed(samples, Behavior(t_s, t_s[:, None], "cm"), BLOCK_S, pace),
        marker_feed(markers, Trials(t_s, np.full(4, np.nan)), pace),
    ]
    assert replay(feeds, pace, clock)
    for recorder in (spikes, samples, markers):
        np.testing.assert_allclose(
            np.array(recorder.stamps_s) - t_s, T0_S + 0.05, rtol=0, atol=1e-9
        )


def test_a_replay_can_be_stopped_and_tells_how_far_it_is() -> None:
    clock = ManualClock(T0_S)
    recorder = SpikeRecorder(clock)
    pace = Pace(T0_S, 0, 60_000_000)
    heard: list[ReplayProgress] = []
    complete = replay(
        [spike_feed(recorder, spikes_of([1_000_000, 30_000_000]), BLOCK_S, pace)],
        pace,
        clock,
        on_progress=heard.append,
        is_stopped=lambda: clock.now() >= T0_S + 10.0,
    )
    assert not complete
    assert len(recorder.sent) == 1
    reached_s = [progress.t_s for progress in heard]
    assert reached_s == sorted(reached_s)
    assert 9.0 < reached_s[-1] <= 10.01
    assert 15 <= len(heard) <= 25
    assert heard[0].stop_s == 60.0


def test_progress_after_a_stall_is_not_beyond_the_end() -> None:
    clock = StallingClock([100.0])
    pace = Pace(T0_S, 0, 1_000_000)
    heard: list[ReplayProgress] = []
    feed = spike_feed(SpikeRecorder(clock), spikes_of([5]), BLOCK_S, pace)
    assert replay([feed], pace, clock, on_progress=heard.append)
    assert [progress.t_s for progress in heard] == [1.0]


@given(st.floats(0.0, 1e5), st.sampled_from([0.001, 0.005, 0.007]))
def test_blocks_are_the_first_after_an_instant(since_s: float, block_s: float) -> None:
    blocks = BlockGrid(T0_S, block_s)
    t_s = T0_S + since_s
    after_s = blocks.after(t_s)
    assert t_s < after_s <= t_s + block_s + 1e-9
    assert abs((after_s - T0_S) / block_s - round((after_s - T0_S) / block_s)) < 1e-4


@pytest.mark.parametrize(
    ("t_us", "start_s", "stop_s", "expected"),
    [
        ([2_778, 990_000], None, None, (0, 1_000_000)),
        ([-18_295, 990_001], None, None, (-50_000, 1_000_000)),
        ([0, 1_000_000], None, None, (-50_000, 1_000_000)),
        ([50_000, 1_000_001], None, None, (0, 1_050_000)),
        ([300_010_000, 301_000_000], None, None, (300_000_000, 301_000_000)),
        ([2_778, 990_000], 0.52, 0.77, (520_000, 770_000)),
        ([2_778, 990_000], 0.5, 77.0, (500_000, 1_000_000)),
    ],
)
def test_by_default_everything_is_replayed_from_an_edge_before_it(
    t_us: list[int], start_s: float | None, stop_s: float | None, expected: tuple[int, int]
) -> None:
    assert chosen_range_us(session_of(spikes_of(t_us)), start_s, stop_s, 50_000) == expected


def test_behaviour_that_begins_before_the_spikes_is_replayed_too() -> None:
    signal = Behavior(np.array([-0.32, 0.4]), np.zeros((2, 1)), "cm")
    session = session_of(spikes_of([100_000]), {"processing/b/x": signal})
    assert chosen_range_us(session, None, None, 50_000)[0] == -350_000


@pytest.mark.parametrize(
    ("start_s", "stop_s"), [(5.0, 4.0), (60.0, None), (None, -3.0), (2.0, 2.0)]
)
def test_a_range_without_anything_says_where_the_recording_lies(
    start_s: float | None, stop_s: float | None
) -> None:
    with pytest.raises(SessionError, match=r"nothing to replay.* lies in 0 to 50 s"):
        chosen_range_us(session_of(spikes_of([10, 50_000_000])), start_s, stop_s, 50_000)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"speed": 0.0}, "speed"),
        ({"speed": math.inf}, "speed"),
        ({"block_ms": -1.0}, "block"),
        ({"counts_ms": -50.0}, "counts bin"),
        ({"start_s": 900.0}, "nothing to replay"),
    ],
)
def test_impossible_numbers_are_refused_before_a_stream_opens(
    tmp_path: Path, options: dict[str, float], text: str
) -> None:
    write_session(session_of(spikes_of([10, 50_000])), tmp_path / "a.nwb")
    with pytest.raises(SessionError, match=text):
        run_replay(tmp_path / "a.nwb", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "n", "labels"),
    [
        ("gaze", 1, ["gaze"]),
        ("hand", 2, ["hand_x", "hand_y"]),
        ("emg", 4, ["emg_0", "emg_1", "emg_2", "emg_3"]),
    ],
)
def test_channels_are_named_after_their_signal(name: str, n: int, labels: list[str]) -> None:
    assert channel_labels(name, n) == labels


def test_a_whole_recording_arrives() -> None:
    path = RECORDINGS / "hippocampus_t_maze.nwb"
    if not path.exists():
        pytest.skip(f"needs the recordings beside the repository: no {path.name} there")
    session = read_session(path)
    clock = ManualClock(T0_S)
    spikes, counts = SpikeRecorder(clock), CountsRecorder(clock)
    pace = Pace(T0_S, *chosen_range_us(session, None, None, 50_000), 20.0)
    feeds: list[Feed] = [
        spike_feed(spikes, session.spikes, BLOCK_S, pace),
        counts_feed(counts, session.spikes, len(session.unit_keys), 50_000, pace),
    ]
    assert replay(feeds, pace, clock)
    assert len(spikes.sent) == sum(map(sum, counts.values)) == 102_741
    error_s = (np.array(spikes.stamps_s) - T0_S) * 20.0 - session.spikes.t_us * 1e-6
    assert np.ptp(error_s) < 1e-6
