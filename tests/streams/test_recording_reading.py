"""Recordings of others: our stamps are pyxdf's, and what is odd about their clocks is remarks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyxdf

from streams.errors import RecordingError
from streams.sessions.convert.convert import MENDED, Reading, convert
from streams.sessions.session import Session
from streams.sessions.xdf.reading import read_recording
from tests.streams import labrecorder
from tests.streams.labrecorder import SECONDS, T0_S, Source, hand, markers, spikes

AGREE_S = 10e-6


def drift(offset_s: float, ppm: float) -> Callable[[float], float]:
    return lambda t_s: offset_s + ppm * 1e-6 * (t_s - T0_S)


def resets(*parts: tuple[float, float]) -> Callable[[float], float]:
    """Offsets from so many seconds on."""
    return lambda t_s: next(offset for at, offset in reversed(parts) if t_s >= T0_S + at)


def damaged(sources: list[Source], i: int, content: bytes) -> bytes:
    """A file in which one chunk, counted without headers, begins with other bytes."""
    chunks = labrecorder.file_chunks(sources)
    i += 1 + len(sources) if i >= 0 else len(chunks)
    chunks[i] = content + chunks[i][len(content) :]
    return b"".join(chunks)


def lab(offset: Callable[[float], float] = lambda t_s: 0.0, **more: object) -> list[Source]:
    return [spikes(offset=offset, **more), hand(), markers()]


FILES: dict[str, Callable[[], bytes]] = {
    "plain": lambda: b"".join(labrecorder.file_chunks(lab())),
    "drift of 200 ppm": lambda: b"".join(labrecorder.file_chunks(lab(drift(-9000.0, 200.0)))),
    "drift of -300 ppm": lambda: b"".join(labrecorder.file_chunks(lab(drift(-20_000.0, -300.0)))),
    "one reset": lambda: b"".join(labrecorder.file_chunks(lab(resets((0, -9000.0), (20, 700.0))))),
    "two resets": lambda: b"".join(
        labrecorder.file_chunks(lab(resets((0, -9000.0), (15, 700.0), (30, -4000.0))))
    ),
    "damage": lambda: damaged(lab(drift(-9000.0, 200.0)), 60, b"\x07"),
    "damage in the first chunk": lambda: damaged(lab(), 0, b"\x07"),
    "damage in the last": lambda: damaged(lab(), -1, b"\x07"),
    "cut": lambda: b"".join(labrecorder.file_chunks(lab()))[:-5000],
    "floats": lambda: b"".join(labrecorder.file_chunks(lab(fmt="float32"))),
    "in two": lambda: b"".join(
        labrecorder.file_chunks([part(1, 0.0, 20.0), part(4, 21.0, 40.0), hand(), markers()])
    ),
}


def part(number: int, begin_s: float, end_s: float, **more: object) -> Source:
    """The spikes of a part of the recording, as a stream of its own."""
    whole = spikes(offset=drift(-9000.0, 200.0))
    inside = (whole.t_s >= T0_S + begin_s) & (whole.t_s < T0_S + end_s)
    values = np.asarray(whole.values)[inside]
    return replace(whole, number=number, t_s=whole.t_s[inside], values=values, **more)


def theirs(path: Path, kind: str) -> np.ndarray:
    logger = logging.getLogger("pyxdf.pyxdf")
    logger.disabled = True
    streams, _ = pyxdf.load_xdf(path)
    logger.disabled = False
    stamps = [one["time_stamps"] for one in streams if one["info"]["type"][0] == kind]
    return np.sort(np.concatenate(stamps))


def spike_times(session: Session) -> np.ndarray:
    times = session.spikes.t_us * 1e-6 + float(session.provenance["lsl_time_of_start"])
    return np.sort(times)


@pytest.mark.parametrize("name", FILES)
def test_our_stamps_are_those_of_pyxdf(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.xdf"
    path.write_bytes(FILES[name]())
    session = convert([path], None, Reading())
    np.testing.assert_allclose(spike_times(session), theirs(path, "Spikes"), rtol=0, atol=AGREE_S)
    recording = read_recording(path)
    for kind in ("Position", "Markers"):
        ours = np.sort(recording.of_type(kind).t_s)
        np.testing.assert_allclose(ours, theirs(path, kind), rtol=0, atol=AGREE_S)
    assert session.duration_s <= SECONDS
    assert session.trials is not None
    assert len(session.trials) >= 6


@pytest.mark.parametrize("name", [name for name in FILES if "ppm" in name or "reset" in name])
def test_our_stamps_are_true(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.xdf"
    path.write_bytes(FILES[name]())
    session = convert([path], None, Reading())
    np.testing.assert_allclose(spike_times(session), spikes().t_s, rtol=0, atol=AGREE_S)


def test_even_steps_mend_jitter_but_no_hole(tmp_path: Path) -> None:
    steady = hand(rate=50.0)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, len(steady.t_s))
    labrecorder.write(tmp_path / "jitter.xdf", [spikes(), replace(steady, t_s=steady.t_s + jitter)])
    mended = read_recording(tmp_path / "jitter.xdf").of_type("Position").t_s
    assert np.abs(mended - steady.t_s).max() < 1e-3
    np.testing.assert_array_equal(mended, theirs(tmp_path / "jitter.xdf", "Position"))
    there = (steady.t_s < T0_S + 10.0) | (steady.t_s > T0_S + 14.0)
    holed = replace(steady, t_s=steady.t_s[there], values=np.asarray(steady.values)[there])
    labrecorder.write(tmp_path / "hole.xdf", [spikes(), holed])
    recording = read_recording(tmp_path / "hole.xdf")
    np.testing.assert_allclose(recording.of_type("Position").t_s, holed.t_s, rtol=0, atol=1e-9)
    assert any("taken as they were sent" in text for text in recording.remarks)


def remarks(path: Path) -> str:
    return convert([path], None, Reading()).provenance[MENDED]


def test_a_reset_is_said_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    path.write_bytes(FILES["two resets"]())
    text = remarks(path)
    assert "the clock of 'amplifier' was reset" in text
    cuts = [float(word.rstrip(" s")) for word in text.split("cut at ")[1].split(", ")]
    np.testing.assert_allclose(cuts, [15.0, 30.0], atol=0.2)


@pytest.mark.parametrize("jump_s", [0.5, 3.0, -3.0])
def test_a_clock_that_jumps_unnoticed_by_pyxdf_is_refused(tmp_path: Path, jump_s: float) -> None:
    offset = resets((0, -9000.0), (20, -9000.0 + jump_s))
    path = labrecorder.write(tmp_path / "a.xdf", lab(offset))
    with pytest.raises(RecordingError, match=r"its clock (jumped|was reset|seems)"):
        convert([path], None, Reading())


def test_a_reset_between_two_measurements_is_refused(tmp_path: Path) -> None:
    sources = lab(resets((0, -9000.0), (4, -12_000.0)))
    path = labrecorder.write(tmp_path / "a.xdf", sources, seconds=9)
    with pytest.raises(RecordingError, match="% off the recorder's"):
        convert([path], None, Reading())


def test_a_reset_without_measurements_makes_no_session_of_days(tmp_path: Path) -> None:
    offset = resets((0, 0.0), (20, -90_000.0))
    path = labrecorder.write(tmp_path / "a.xdf", lab(offset, has_offsets=False))
    with pytest.raises(RecordingError, match=r"'amplifier'.*from the beginning of the rest"):
        convert([path], None, Reading())


def on_unix_time(sources: list[Source]) -> bytes:
    """Streams whose stamps are Unix time, while LSL's own clock is measured as ever."""
    moved = [replace(one, offset=lambda t_s: -1.7e9, has_offsets=False) for one in sources]
    noisy = [replace(one, offset=lambda t_s: 1e-4 * np.sin(t_s)) for one in sources]
    chunks = labrecorder.file_chunks(moved)
    for k in range(0, SECONDS, 5):
        chunks[-3:-3] = [one.measured(T0_S + k) for one in noisy]
    return b"".join(chunks)


def test_streams_that_are_all_on_unix_time_stay_together(tmp_path: Path) -> None:
    (tmp_path / "a.xdf").write_bytes(on_unix_time(lab()))
    session = convert([tmp_path / "a.xdf"], None, Reading())
    assert session.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert session.trials is not None
    assert session.trials.start_s[0] == pytest.approx(0.2, abs=0.01)
    assert "of another clock than LSL's" in session.provenance[MENDED]


@pytest.mark.parametrize("is_measured", [False, True])
def test_behaviour_on_another_clock_is_left_out_and_said(tmp_path: Path, is_measured: bool) -> None:
    unix = replace(hand(), offset=lambda t_s: -1.7e9, has_offsets=False)
    if is_measured:
        unix = replace(unix, has_offsets=True)
        unix.measured = lambda now_s: hand().measured(now_s)  # type: ignore[method-assign]
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), unix, markers()])
    session = convert([path], None, Reading())
    assert session.duration_s < SECONDS
    assert not session.behavior
    assert "'hand'" in session.provenance[MENDED]
    assert "another clock" in session.provenance[MENDED]


def test_a_stray_stamp_does_not_make_the_session_long(tmp_path: Path) -> None:
    astray = spikes()
    t_s = np.concatenate([astray.t_s, [T0_S + SECONDS - 0.5]])
    values = [*astray.values, [3]]
    far = replace(astray, t_s=t_s, values=values)
    far.offset = lambda t_s: -1e7 if t_s == T0_S + SECONDS - 0.5 else 0.0
    path = labrecorder.write(tmp_path / "a.xdf", [far, hand(), markers()])
    session = convert([path], None, Reading())
    assert session.duration_s <= SECONDS
    assert len(session.spikes) == len(astray.t_s)
    assert "1 samples of 'amplifier' were left out" in session.provenance[MENDED]


@pytest.mark.parametrize("t0_s", [-3_000.0, 0.5, 1.7e9])
def test_a_session_begins_at_its_first_sample_whenever_that_is(tmp_path: Path, t0_s: float) -> None:
    moved = [replace(one, offset=lambda t_s: T0_S - t0_s, has_offsets=False) for one in lab()]
    path = labrecorder.write(tmp_path / "a.xdf", moved)
    session = convert([path], None, Reading())
    assert session.duration_s == pytest.approx(SECONDS, abs=0.1)
    assert len(session.spikes) == len(spikes().t_s)
    assert session.trials is not None
    first_s = min(one.t_s.min() for one in lab()) - T0_S
    np.testing.assert_allclose(session.trials.start_s[0], 0.2 - first_s, atol=1e-6)
    assert session.spikes.t_us.min() >= 0


def test_a_marker_before_all_else_begins_the_session(tmp_path: Path) -> None:
    late = [replace(one, t_s=one.t_s + 2.0) for one in (spikes(), hand())]
    path = labrecorder.write(tmp_path / "a.xdf", [*late, markers()])
    session = convert([path], None, Reading())
    assert session.trials is not None
    assert session.trials.start_s[0] == 0.0
    assert session.spikes.t_us.min() > 1.7e6


def test_a_stream_without_samples_is_said(tmp_path: Path) -> None:
    empty = replace(markers(), t_s=np.zeros(0), values=[])
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), hand(), empty])
    session = convert([path], None, Reading(), needs_trials=True)
    assert session.trials is not None
    assert not len(session.trials)
    assert "'task' brought no sample" in session.provenance[MENDED]


def test_the_first_sample_that_labrecorder_makes_up_is_left_out(tmp_path: Path) -> None:
    chunks = labrecorder.file_chunks([spikes(), hand(), replace(markers(), has_footer=False)])
    chunks = [one for one in chunks if one[2:8] != b"\x03\x00\x03\x00\x00\x00"]
    chunks.insert(6, labrecorder.chunk(3, b"\x01\x01\x00\x01\x00", 3))
    (tmp_path / "a.xdf").write_bytes(b"".join(chunks))
    session = convert([tmp_path / "a.xdf"], None, Reading())
    assert session.duration_s <= SECONDS
    assert "1 samples of 'task' without a stamp were left out" in session.provenance[MENDED]
