"""The recorder with senders of the test's making: clocks that drift, go away and are wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import pyxdf

from streams.clock import ManualClock, OffsetEstimate
from streams.errors import StreamLostError, StreamUnfitError
from streams.lsl.description import StreamDescription
from streams.sessions.record import tracks
from streams.sessions.record.losses import SequenceCount, StampWatch
from streams.sessions.record.recorder import Recorder
from streams.sessions.record.search import PulledBlock, Wanted, arrival_stamps

T0_S = 50_000.0
WITHIN_S = 20.0


@dataclass
class Sender:
    """What the recorder asks of an inlet, from a sender whose clock is the test's.

    Attributes:
        offset: what to add to its stamps, by the recorder's time.
        clock: the recorder's.
        is_silent: whether its clock does not answer.
    """

    offset: Callable[[float], float]
    clock: ManualClock
    description: StreamDescription = field(
        default_factory=lambda: StreamDescription(
            "amplifier", "Spikes", "app", "far", 2, 0.0, "int32", "u"
        )
    )
    labels: tuple[str, ...] = ("unit", "seq")
    is_silent: bool = False
    same_host: bool = False

    def __post_init__(self) -> None:
        self.sent: list[tuple[float, int]] = []
        self.ended = threading.Event()
        self.pulled = threading.Event()
        self._n_pulled = 0

    @property
    def xml(self) -> str:
        channels = "".join(f"<channel><label>{one}</label></channel>" for one in self.labels)
        return (
            "<info><name>amplifier</name><type>Spikes</type><channel_count>2</channel_count>"
            "<nominal_srate>0</nominal_srate><channel_format>int32</channel_format>"
            f"<desc><channels>{channels}</channels></desc></info>"
        )

    def send(self, seq: int) -> None:
        """Send a sample now, and wait until it was pulled."""
        self.pulled.clear()
        self.sent.append((self.clock.now(), seq))
        assert self.pulled.wait(WITHIN_S)

    def open(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def is_visible(self, timeout_s: float) -> bool:
        """Whether it is there."""
        return not self.ended.is_set()

    def pull(self, timeout_s: float) -> tuple[np.ndarray, np.ndarray]:
        """What was sent since."""
        held = self.sent[self._n_pulled :]
        if not held:
            self.pulled.set()
            if self.ended.is_set():
                raise StreamLostError("ended")
            return np.zeros((0, 2), np.int32), np.zeros(0)
        self._n_pulled += len(held)
        values = np.array([(3, seq) for _, seq in held], np.int32)
        return values, np.array([t_s - self.offset(t_s) for t_s, _ in held])

    def clock_offset(self, timeout_s: float) -> OffsetEstimate | None:
        """Measure its clock now."""
        now_s = self.clock.now()
        return None if self.is_silent else OffsetEstimate(now_s, self.offset(now_s), 1e-4)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(T0_S)


class Rig:
    """A recorder of one sender."""

    def __init__(self, path: Path, clock: ManualClock, sender: Sender, **more: bool) -> None:
        self.path, self.clock, self.sender = path, clock, sender
        self.told: list[str] = []
        self.recorder = Recorder(path, clock, self.told.append, **more)
        self.recorder.open([sender], [Wanted("Spikes")])  # type: ignore[list-item]
        self.track = self.recorder._tracks[0]

    def settle(self) -> None:
        """Step until what is measured is in."""
        piece = self.track._pieces[-1]
        self.recorder.step()
        while piece.measuring is not None and not self.sender.is_silent:
            piece.measuring.exception()
            self.recorder.step()

    def send_for(self, seconds: int, first_seq: int = 0) -> None:
        """Ten samples a second, a step of the recorder after each."""
        for k in range(10 * seconds):
            self.clock.t_s += 0.1
            self.sender.send(first_seq + k)
            self.settle()


@pytest.fixture
def rig(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(offset: Callable[[float], float] = lambda t_s: 0.0, **more: bool) -> Rig:
        made.append(Rig(tmp_path / "a.xdf", clock, Sender(offset, clock), **more))
        return made[-1]

    yield make
    for one in made:
        one.sender.ended.set()
        one.recorder.release()


@pytest.mark.parametrize(("hours", "ppm"), [(5.0, 200.0), (-30.0, -300.0), (0.0, 50.0)])
def test_stamps_are_true_for_a_sender_whose_clock_drifts(
    rig: Callable[..., Rig], hours: float, ppm: float
) -> None:
    one = rig(lambda t_s: hours * 3600.0 + 0.7 + ppm * 1e-6 * (t_s - T0_S))
    one.send_for(60)
    one.recorder.close()
    (stream,), _ = pyxdf.load_xdf(one.path)
    truth = np.array([t_s for t_s, _ in one.sender.sent])
    np.testing.assert_allclose(stream["time_stamps"], truth, rtol=0, atol=10e-6)
    assert len(stream["clock_times"]) >= 10
    assert one.recorder.status()["lost"] == []


def test_something_is_in_the_file_before_the_first_measurement(rig: Callable[..., Rig]) -> None:
    one = rig(lambda t_s: 3600.0)
    one.sender.is_silent = True
    one.clock.t_s += 0.1
    one.sender.send(0)
    one.recorder.step()
    (stream,), _ = pyxdf.load_xdf(one.path)
    assert stream["time_series"].tolist() == [[3, 0]]
    assert stream["clock_times"] == []


def test_the_clock_of_this_host_is_taken_as_one(rig: Callable[..., Rig]) -> None:
    one = rig(lambda t_s: -3e-5)
    one.sender.same_host = one.track._pieces[0].offset.same_host = True
    one.send_for(12)
    one.recorder.close()
    (stream,), _ = pyxdf.load_xdf(one.path)
    assert set(stream["clock_values"]) == {0.0}


@pytest.mark.parametrize("off_s", [1.7e9, -40.0, 2.0, 6.0 - 40.0])
def test_stamps_of_another_clock_are_refused_at_the_start(
    rig: Callable[..., Rig], off_s: float
) -> None:
    one = rig(lambda t_s: 3600.0)
    stamped = one.sender.offset
    one.sender.offset = lambda t_s: stamped(t_s) - off_s
    one.sender.clock_offset = lambda timeout_s: OffsetEstimate(one.clock.now(), 3600.0, 1e-4)  # type: ignore[method-assign]
    with pytest.raises(
        StreamUnfitError, match=r"'amplifier'.*not of LSL's clock.*--stamps arrival"
    ):
        one.send_for(2)


def test_a_stream_that_leaves_the_clock_later_is_said_and_counted(rig: Callable[..., Rig]) -> None:
    one = rig()
    one.send_for(30)
    one.sender.offset = lambda t_s: 100.0
    one.sender.clock_offset = lambda timeout_s: None  # type: ignore[method-assign]
    one.send_for(2, 300)
    one.sender.offset = lambda t_s: 0.0
    one.send_for(2, 320)
    assert [text for text in one.told if "left LSL's clock: they are 100.0" in text]
    assert one.told[-1].endswith("are of LSL's clock again")
    assert one.recorder.status()["lost"] == [
        "20 samples of 'amplifier' bear stamps of another clock"
    ]


def test_arrival_is_recorded_where_it_is_asked_for(rig: Callable[..., Rig]) -> None:
    one = rig(lambda t_s: 1.7e9, by_arrival=True)
    one.send_for(12)
    one.recorder.close()
    (stream,), header = pyxdf.load_xdf(one.path)
    truth = np.array([t_s for t_s, _ in one.sender.sent])
    np.testing.assert_allclose(stream["time_stamps"], truth, rtol=0, atol=1e-9)
    assert header["info"]["stamps"] == ["arrival"]
    assert one.recorder.status()["lost"] == []


def test_a_regular_stream_by_arrival_is_in_even_steps() -> None:
    block = PulledBlock(10.0, np.zeros((3, 1)), np.zeros(3))
    np.testing.assert_allclose(arrival_stamps(block, 100.0), [9.98, 9.99, 10.0])
    np.testing.assert_array_equal(arrival_stamps(block, 0.0), [10.0, 10.0, 10.0])


@pytest.mark.parametrize(("first_seq", "known"), [(57, 7), (0, None)])
def test_an_outage_is_told_with_what_is_lost(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, first_seq: int, known: int | None
) -> None:
    one = rig()
    one.send_for(5)
    again = Sender(lambda t_s: 0.0, one.clock)

    class Found:
        remarks: tuple[str, ...] = ()

        def __init__(self, wanted: Wanted, lost: Sender) -> None:
            assert lost is one.sender

        def found(self) -> Sender:
            return again

    monkeypatch.setattr(tracks, "Search", Found)
    first = one.sender
    first.ended.set()
    one.track._pieces[0].puller.join(WITHIN_S)
    one.recorder.step()
    assert "is away" in one.told[-1]
    one.clock.t_s += 3.0
    one.recorder.step()
    one.sender = again
    one.send_for(2, first_seq)
    one.recorder.close()
    again.ended.set()
    (outage,) = one.recorder.status()["outages"]
    assert outage["from_s"] == pytest.approx(5.0)
    assert outage["to_s"] == pytest.approx(8.1)
    assert outage["n_samples"] == known
    streams, _ = pyxdf.load_xdf(one.path)
    assert [len(stream["time_stamps"]) for stream in streams] == [50, 20]
    assert [stream["footer"]["info"]["sample_count"] for stream in streams] == [["50"], ["20"]]


def test_a_sender_that_vanished_without_a_word_is_noticed(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing:
        remarks: tuple[str, ...] = ()

        def __init__(self, wanted: Wanted, lost: Sender) -> None: ...

        def found(self) -> None:
            return None

        def end(self) -> None: ...

    monkeypatch.setattr(tracks, "Search", Nothing)
    one = rig()
    one.send_for(2)
    one.sender.is_visible = lambda timeout_s: False  # type: ignore[method-assign]
    unanswered(one)
    one.recorder.close()
    assert one.recorder.status()["lost"] == [
        "'amplifier' was lost at 2.00 s, and nothing came of it after"
    ]


def test_a_connection_that_stands_is_not_given_up_because_nobody_answers(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    class Nothing:
        remarks: tuple[str, ...] = ()

        def __init__(self, wanted: Wanted, lost: Sender) -> None: ...

        def found(self) -> None:
            return None

        def end(self) -> None:
            ended.append(True)

    monkeypatch.setattr(tracks, "Search", Nothing)
    one = rig()
    one.send_for(2)
    one.sender.is_visible = lambda timeout_s: False  # type: ignore[method-assign]
    unanswered(one)
    assert "is away" in one.told[-1]
    one.send_for(1, 20)
    assert ended
    assert "nothing is lost" in one.told[-1]
    one.recorder.close()
    assert one.recorder.status()["lost"] == []
    (stream,), _ = pyxdf.load_xdf(one.path)
    assert len(stream["time_stamps"]) == 30


def unanswered(one: Rig) -> None:
    """Let the recorder ask for its silent stream, time and again."""
    piece = one.track._pieces[0]
    for _ in range(8):
        one.clock.t_s += 1.6
        one.settle()
        if piece.asking is not None:
            piece.asking.exception()
    one.recorder.step()


def test_a_silent_stream_that_is_there_is_not_lost(rig: Callable[..., Rig]) -> None:
    one = rig()
    one.send_for(1)
    piece = one.track._pieces[0]
    for _ in range(20):
        one.clock.t_s += 2.0
        one.settle()
        if piece.asking is not None:
            piece.asking.exception()
    assert one.recorder.status()["lost"] == []


def test_a_clock_that_is_never_measured_is_told(rig: Callable[..., Rig]) -> None:
    one = rig(lambda t_s: 3600.0)
    one.sender.is_silent = True
    one.send_for(1)
    one.recorder.close()
    (text,) = one.recorder.status()["lost"]
    assert "could not be measured: 10 stamps" in text


def test_sequence_holes_are_counted() -> None:
    count = SequenceCount(("unit", "SEQ"))
    for k, seq in enumerate([(0, 1, 2), (5, 6), (7,)]):
        count.add(np.array([(1, one) for one in seq], np.int32), float(k))
    assert count.n_lost == 2
    assert not count.has_begun_anew
    count.add(np.array([(1, 0)], np.int32), 9.0)
    assert count.has_begun_anew
    assert count.n_lost == 2
    assert not SequenceCount(("unit",)).is_there


def test_stamps_wait_for_the_clock_before_they_are_judged() -> None:
    what = StreamDescription("m", "Markers", "", "far", 1, 0.0, "string", "u")
    watch = StampWatch(what, 100.0)
    assert watch.add(np.array([3.0, 3.1]), 101.0, None) == ""
    assert watch.n_unchecked == 2
    assert watch.add(np.zeros(0), 101.0, 98.0) == ""
    assert (watch.n_unchecked, watch.n_off) == (0, 0)
