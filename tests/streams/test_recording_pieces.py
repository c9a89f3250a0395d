"""Streams made anew during a recording, and markers of every type."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streams.errors import RecordingError, StreamUnfitError
from streams.sessions.convert.convert import MENDED, Reading, convert
from streams.sessions.convert.signals import marker_texts, trials_of
from streams.sessions.xdf.reading import read_recording
from tests.streams import labrecorder
from tests.streams.labrecorder import T0_S, Source, hand, markers, spikes


def between(source: Source, number: int, begin_s: float, end_s: float, **more: object) -> Source:
    """A part of a stream as a stream of its own."""
    inside = (source.t_s >= T0_S + begin_s) & (source.t_s < T0_S + end_s)
    values = np.asarray(source.values)[inside]
    return replace(source, number=number, t_s=source.t_s[inside], values=values, **more)


def numbered() -> Source:
    """Spikes with the numbers of their samples."""
    one = spikes()
    values = np.column_stack([np.asarray(one.values), np.arange(len(one.t_s))])
    return replace(one, labels=("unit", "seq"), values=values)


def test_a_stream_made_anew_three_times_is_joined(tmp_path: Path) -> None:
    whole, cuts = numbered(), (0.0, 10.0, 20.0, 30.0, 40.0)
    pieces = []
    for i, (begin_s, end_s) in enumerate(itertools.pairwise(cuts)):
        part = between(whole, 10 + i, begin_s, end_s, source_id=f"app-{i}")
        values = np.asarray(part.values)
        values[:, 1] -= values[0, 1]
        pieces.append(replace(part, values=values, offset=lambda t_s, i=i: -1000.0 * i))
    path = labrecorder.write(tmp_path / "a.xdf", [*reversed(pieces), hand(), markers()])
    session = convert([path], None, Reading())
    assert len(session.spikes) == len(whole.t_s)
    np.testing.assert_allclose(
        np.diff(session.spikes.t_us), np.diff(whole.t_s) * 1e6, atol=2.0, rtol=0
    )
    assert "'amplifier' was made anew 3 times, at 10.0" in session.provenance[MENDED]


def test_markers_and_behaviour_made_anew_are_joined(tmp_path: Path) -> None:
    both = [
        between(one, 10 * k + one.number, 20.0 * k, 20.0 * k + 20.0)
        for k in (0, 1)
        for one in (hand(), markers())
    ]
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), *both])
    session = convert([path], None, Reading())
    assert session.trials is not None
    assert len(session.trials) == 8
    assert len(session.signal("hand_position").t_s) == len(hand().t_s)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ("electrode",)},
        {"fmt": "float32"},
        {"labels": ("unit", "seq"), "n": 2},
        {"rate": 50.0},
    ],
)
def test_pieces_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: dict[str, object]
) -> None:
    whole = spikes()
    after = between(whole, 9, 20.0, 40.0)
    n = int(change.pop("n", 1))
    after = replace(after, values=np.repeat(after.values, n, axis=1), **change)
    path = labrecorder.write(tmp_path / "a.xdf", [between(whole, 1, 0.0, 20.0), after])
    with pytest.raises(RecordingError, match=r"'amplifier'.*do not fit together"):
        convert([path], None, Reading())


def test_two_streams_of_one_name_at_one_time_are_refused(tmp_path: Path) -> None:
    second = replace(spikes(number=9), hostname="other")
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), second])
    with pytest.raises(RecordingError, match=r"host rig.* host other.* at the same time"):
        convert([path], None, Reading())
    named = replace(second, name="second")
    path = labrecorder.write(tmp_path / "b.xdf", [spikes(), named])
    assert len(convert([path], None, Reading(spikes_name="second")).spikes) == len(named.t_s)


def test_samples_that_never_came_are_said(tmp_path: Path) -> None:
    whole = numbered()
    kept = np.ones(len(whole.t_s), np.bool_)
    kept[100:110] = False
    lacking = replace(whole, t_s=whole.t_s[kept], values=np.asarray(whole.values)[kept])
    path = labrecorder.write(tmp_path / "a.xdf", [lacking])
    session = convert([path], None, Reading())
    assert "10 samples of 'amplifier' never came" in session.provenance[MENDED]


def test_a_source_that_counts_anew_within_one_stream_loses_nothing(tmp_path: Path) -> None:
    """LSL finds a stream again by its source_id without telling the recorder."""
    whole = numbered()
    away = (whole.t_s > T0_S + 18.0) & (whole.t_s < T0_S + 20.0)
    values = np.asarray(whole.values)
    after = whole.t_s >= T0_S + 20.0
    values[after, 1] -= values[after, 1].min()
    again = replace(whole, t_s=whole.t_s[~away], values=values[~away])
    path = labrecorder.write(tmp_path / "a.xdf", [again])
    assert len(convert([path], None, Reading()).spikes) == len(again.t_s)


@pytest.mark.parametrize(
    ("fmt", "texts", "words"),
    [
        ("int32", (32769, 32770), ("32769", "32770")),
        ("int16", (1, 10), ("1", "10")),
        ("int64", (10, 1), ("10", "1")),
        ("float32", (769.0, 770.0), ("769", "770")),
        ("double64", (0.5, 0.25), ("0.5", "0.25")),
        ("string", ("trial", "trial_stop"), ("trial", "trial_stop")),
        ("string", ("S  1", "S 10"), ("S  1", "S 10")),
    ],
)
def test_markers_of_any_type_make_trials(
    tmp_path: Path, fmt: str, texts: tuple[object, object], words: tuple[str, str]
) -> None:
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), hand(), markers(3, fmt, texts)])
    reading = Reading(trial_start=words[0], trial_stop=words[1])
    trials = convert([path], None, reading, needs_trials=True).trials
    assert trials is not None
    assert len(trials) == 8
    np.testing.assert_allclose(trials.stop_s - trials.start_s, 3.0, atol=1e-6)


def test_several_channels_are_one_text(tmp_path: Path) -> None:
    pairs = replace(
        markers(3, "double64", (1.0, 2.0)), labels=("code", "trial"),
        values=[[1 + k % 2, k // 2 + 0.5] for k in range(16)],
    )  # fmt: skip
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), pairs])
    texts = marker_texts(read_recording(path).of_type("Markers"))
    assert texts[:3] == ["1 0.5", "2 0.5", "1 1.5"]
    trials = convert([path], None, Reading(trial_start="1", trial_stop="2")).trials
    assert trials is not None
    assert len(trials) == 8


def test_markers_that_make_no_trial_are_an_error_that_shows_ten(tmp_path: Path) -> None:
    codes = markers(3, "int32", (1, 2))
    codes = replace(codes, values=[[700 + i // 2] for i in range(16)], t_s=codes.t_s)
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), codes])
    with pytest.raises(RecordingError) as caught:
        convert([path], None, Reading(), needs_trials=True)
    text = str(caught.value)
    assert "no trial in 16 markers" in text
    assert all(f"'{code}'" in text for code in range(700, 708))
    assert "--trial-start '700' --trial-stop '701'" in text
    many = replace(codes, values=[[700 + i] for i in range(16)])
    path = labrecorder.write(tmp_path / "b.xdf", [spikes(), many])
    with pytest.raises(RecordingError, match="'709' and 6 others"):
        convert([path], None, Reading(), needs_trials=True)
    session = convert([path], None, Reading(markers=""), needs_trials=True)
    assert session.trials is None
    assert not session.behavior


def test_a_number_is_a_marker_only_as_a_whole() -> None:
    texts = ["1", "10", "12", "1.5", "1 5", "2"]
    found = trials_of(texts, np.arange(6.0), trial_start="1", trial_stop="2")
    assert [one["start_s"] for one in found] == [0.0, 4.0]
    assert found[1]["i"] == 5.0


def test_capital_axes_are_axes(tmp_path: Path) -> None:
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), replace(hand(), labels=("Y", "X"))])
    position = convert([path], None, Reading(body="cursor")).signal("cursor_position").values
    np.testing.assert_allclose(position, np.asarray(hand().values)[:, ::-1])


def test_two_streams_with_one_signal_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    other = replace(hand(number=7), name="tracker")
    path = labrecorder.write(tmp_path / "a.xdf", [spikes(), hand(), other])
    with pytest.raises(RecordingError, match=r"hand_position twice.*'tracker'.*--behavior"):
        convert([path], None, Reading())
    session = convert([path], None, Reading(behavior=[("Position", "tracker")]))
    assert "Position/hand_position" in " ".join(session.behavior)


def test_columns_that_no_label_tells_are_named(tmp_path: Path) -> None:
    whole = spikes()
    values = np.column_stack([np.full(len(whole.t_s), 0.5), np.asarray(whole.values)])
    odd = replace(whole, fmt="double64", labels=("amplitude", "which"), values=values)
    path = labrecorder.write(tmp_path / "a.xdf", [odd])
    with pytest.raises(StreamUnfitError, match="--columns channel,unit,other"):
        convert([path], None, Reading())
    session = convert([path], None, Reading(columns=("other", "unit"), ignore_units=(0,)))
    assert sorted(session.unit_keys) == [f"u{i}" for i in range(1, 8)]
    n_zero = int(np.count_nonzero(np.asarray(whole.values) == 0))
    assert (
        f"{n_zero} samples of 'amplifier' were of units to leave out"
        in (session.provenance[MENDED])
    )


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = labrecorder.write(tmp_path / "a.xdf", [spikes()])
    monkeypatch.setitem(sys.modules, "pyxdf", None)
    with pytest.raises(RecordingError, match=r"pip install 'spikeloop\[nwb\]'"):
        convert([path], None, Reading())
