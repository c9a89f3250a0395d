"""Recordings become sessions: trials however late their markers, velocity, parts in a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import RecordingError
from streams.sessions.convert.convert import Reading, convert
from streams.sessions.convert.signals import trials_of, velocity
from streams.sessions.xdf import chunks
from streams.sessions.xdf.chunks import frame
from tests.streams.test_recording_xdf import HEADER

WORDS = {"trial_start": "trial_start", "trial_stop": "trial_stop"}


def header(name: str, kind: str, fmt: str, labels: tuple[str, ...]) -> bytes:
    channels = "".join(
        f"<channel><label>{label}</label><unit>cm</unit></channel>" for label in labels
    )
    filled = HEADER.format(name=name, kind=kind, n=len(labels), fmt=fmt, channels=channels)
    return filled.encode()


def write_lab(
    path: Path,
    t0_s: float,
    seconds: float = 4.0,
    spikes: np.ndarray | None = None,
    markers: list[tuple[str, float]] | None = None,
) -> Path:
    """A recording of spikes, markers and a cursor that moves along x at 3 cm/s."""
    t_s = t0_s + np.arange(0.0, seconds, 0.01)
    cursor = np.column_stack([3.0 * (t_s - t0_s), np.zeros(len(t_s)), 9.0 + 0 * t_s, 0 * t_s])
    if spikes is None:
        n = len(t_s)
        spikes = np.column_stack([1 + np.arange(n) % 3, np.ones(n), np.arange(n)])
    markers = markers or [("trial_start i=0 x=9 y=0", 0.5), ("trial_stop i=0 success=1", 2.5)]
    texts = np.array([[text.encode()] for text, _ in markers], object)
    at_s = np.array([t0_s + at for _, at in markers])
    labels = ("cursor_x", "cursor_y", "target_x", "target_y")
    spike_s = np.linspace(t0_s, t0_s + seconds, len(spikes)) + 1e-4
    parts = [
        chunks.file_header("here", "2026-03-04T05:06:07+00:00"),
        frame(chunks.STREAM_HEADER, header("n", "Spikes", "int32", ("channel", "unit", "seq")), 1),
        frame(chunks.STREAM_HEADER, header("m", "Markers", "string", ("marker",)), 2),
        frame(chunks.STREAM_HEADER, header("c", "Position", "double64", labels), 3),
        frame(chunks.SAMPLES, chunks.samples(cursor, t_s, "double64"), 3),
        frame(chunks.SAMPLES, chunks.samples(texts, at_s, "string"), 2),
    ]
    if len(spikes):
        parts.append(frame(chunks.SAMPLES, chunks.samples(spikes, spike_s, "int32"), 1))
    path.write_bytes(b"".join(parts))
    return path


def test_a_recording_becomes_a_session(tmp_path: Path) -> None:
    path = write_lab(tmp_path / "a.xdf", 1000.0)
    reading = Reading(known_keys=("ch9/u1", "ch2/u1"))
    session = convert([path], None, reading)
    assert session.id == "unknown/2026-03-04/a"
    assert session.unit_keys == ("ch2/u1", "ch9/u1", "ch1/u1", "ch3/u1")
    assert len(session.spikes) == 400
    assert 9 not in session.spikes.unit
    assert session.trials is not None
    np.testing.assert_allclose(session.trials.start_s, [0.5])
    np.testing.assert_allclose(session.trials.columns["target"], [[9.0, 0.0]])
    moved = session.signal("cursor_velocity")
    np.testing.assert_allclose(moved.values, [[3.0, 0.0]] * 400, atol=1e-6)
    assert moved.unit == "cm/s"
    assert session.signal("target_position").unit == "cm"


def test_parts_follow_each_other_after_a_second(tmp_path: Path) -> None:
    paths = [write_lab(tmp_path / f"{i}.xdf", 1000.0 + 500.0 * i) for i in range(3)]
    session = convert(paths, "s/2026-01-01/a", Reading())
    assert session.duration_s == pytest.approx(14.0, abs=0.02)
    assert session.trials is not None
    np.testing.assert_allclose(session.trials.start_s, [0.5, 5.5, 10.5], atol=0.01)
    known = session.signal("cursor_velocity").at(np.array([4.5, 5.5]))
    assert np.isnan(known[0]).all()
    np.testing.assert_allclose(known[1], [3.0, 0.0], atol=1e-6)
    assert (np.diff(session.spikes.t_us) >= 0).all()


def test_a_dead_array_is_named(tmp_path: Path) -> None:
    path = write_lab(tmp_path / "a.xdf", 10.0, spikes=np.zeros((0, 3)))
    with pytest.raises(RecordingError, match="brought no spike"):
        convert([path], None, Reading())
    alive = np.array([[-1, -1, i] for i in range(9)])
    path = write_lab(tmp_path / "b.xdf", 10.0, spikes=alive)
    with pytest.raises(RecordingError, match="brought no spike in 9 samples"):
        convert([path], None, Reading())


MARKERS = [
    (f"trial_{what} i={i} {more}".strip(), 10.0 * i + at)
    for i in range(6)
    for what, at, more in (("start", 1.0, f"x={i} y=1"), ("stop", 8.0, "success=1"))
]


@given(st.permutations(MARKERS))
def test_trials_do_not_depend_on_the_order_of_arrival(markers: list[tuple[str, float]]) -> None:
    texts, t_s = [text for text, _ in markers], np.array([at for _, at in markers])
    found = trials_of(texts, t_s, **WORDS)
    assert [one["start_s"] for one in found] == [10.0 * i + 1.0 for i in range(6)]
    assert [one["stop_s"] for one in found] == [10.0 * i + 8.0 for i in range(6)]
    assert [one["x"] for one in found] == list(range(6))


def test_a_trial_without_stop_ends_with_the_next_and_the_last_is_left_out() -> None:
    texts = ["trial_start 0", "other", "trial_start 1", "trial_stop 1", "trial_start 2"]
    found = trials_of(texts, np.arange(5.0), **WORDS)
    assert [(one["start_s"], one["stop_s"]) for one in found] == [(0.0, 2.0), (2.0, 3.0)]


def test_other_words_are_read() -> None:
    found = trials_of(["GO x=1", "END"], np.arange(2.0), trial_start="GO", trial_stop="END")
    assert found == [{"start_s": 0.0, "x": 1.0, "stop_s": 1.0}]


@given(
    st.floats(-50, 50), st.floats(-50, 50), st.floats(0.002, 0.02), st.integers(3, 400),
    st.integers(0, 1000),
)  # fmt: skip
def test_the_slope_of_a_line_is_exact(
    slope: float, offset: float, step_s: float, n: int, seed: int
) -> None:
    jitter = np.random.default_rng(seed).uniform(-0.2, 0.2, n)
    t_s = 5000.0 + (np.arange(n) + jitter) * step_s
    found = velocity(t_s, np.column_stack([offset + slope * t_s, np.full(n, offset)]))
    known = np.isfinite(found).all(axis=1)
    assert known[n // 2] or n < 5
    np.testing.assert_allclose(found[known, 0], slope, atol=1e-4 * (1 + abs(slope)))
    np.testing.assert_allclose(found[known, 1], 0.0, atol=1e-4)


def test_missing_positions_leave_no_velocity_behind() -> None:
    t_s = np.arange(100) * 0.01
    position = np.column_stack([t_s, t_s])
    position[40:45] = np.nan
    found = velocity(t_s, position)
    assert np.isnan(found[38:47]).all()
    np.testing.assert_allclose(found[50:], 1.0)
    assert np.isnan(velocity(t_s, np.full((100, 2), np.nan))).all()
