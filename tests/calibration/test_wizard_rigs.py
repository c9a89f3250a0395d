"""The wizard on other people's rigs: labels, markers, NaN, hosts, and streams that were away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.errors import WizardError
from calibration.wizard.behavior import (
    SHORTEST_GAP_S,
    describe_gaps,
    find_gaps,
    seconds_outside,
    without_gaps,
)
from calibration.wizard.collected import BaseNeeds, Collected
from calibration.wizard.config import CalibrateConfig, load_config
from calibration.wizard.recording import reading_of, streams_to_record
from export.bundle import open_bundle
from tests.calibration.wizard_rigs import DEMO, SECONDS, Rows, judged, run_of, write_rig

BEHAVIOUR = "behaviour for velocity"


@pytest.mark.parametrize(
    "labels",
    [("X", "Y"), ("x", "y"), ("Cursor X", "Cursor Y"), ("pos_X", "pos_Y"), ("cursorX", "cursorY")],
)
def test_the_case_of_labels_and_what_is_between_do_not_matter(
    tmp_path: Path, labels: Sequence[str]
) -> None:
    found = judged(tmp_path, write_rig(tmp_path / "a.xdf", labels=labels))
    assert found[BEHAVIOUR].level == "good"
    assert "2 dimensions in cm/s" in found[BEHAVIOUR].found


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (("left", "right"), '`channels = ["left", "right"]`'),
        (("joystick_x", "joystick_y"), '`channels = ["joystick_x", "joystick_y"]`'),
        (("x", "X"), '`channels = ["x", "X"]`'),
    ],
)
def test_where_channels_cannot_be_told_the_advice_helps(
    tmp_path: Path, labels: Sequence[str], line: str
) -> None:
    path = write_rig(tmp_path / "a.xdf", labels=labels)
    stopped = judged(tmp_path / "before", path)[BEHAVIOUR]
    assert (stopped.level, stopped.code) == ("stop", 3)
    assert line in stopped.do
    assert all(repr(label) in stopped.do for label in labels)
    if len({label.lower() for label in labels}) == 2:
        advised = {"behavior": {"channels": list(labels)}}
        assert judged(tmp_path / "after", path, **advised)[BEHAVIOUR].level == "good"


def test_the_body_that_the_decoder_follows_is_advised(tmp_path: Path) -> None:
    path = write_rig(tmp_path / "a.xdf", labels=("x", "y"))
    stopped = judged(tmp_path / "before", path, behavior={"body": "hand"})[BEHAVIOUR]
    assert '`body = "cursor"`' in stopped.do


def test_positions_that_are_nan_are_counted_and_left_out(tmp_path: Path) -> None:
    at_s = np.arange(0.0, SECONDS, 0.01)
    positions = np.stack([np.cos(at_s), np.sin(at_s)], axis=1)
    positions[::7] = np.nan
    found = judged(tmp_path, write_rig(tmp_path / "a.xdf", positions=positions))
    assert found[BEHAVIOUR].level == "good"
    assert "286 of 2000 samples (14.3%)" in found["positions"].found
    assert found["positions"].do
    seen = looked(tmp_path / "more", positions=positions)
    assert not seen.troubles
    assert seen.remarks == ["286 of 2000 positions (14.3%) are NaN and left out"]


@pytest.mark.parametrize(
    ("rows", "fmt", "start", "stop"),
    [
        ([[32769], [32770]] * 20, "int32", "32769", "32770"),
        ([[1.0], [2.5]] * 20, "float32", "1", "2.5"),
        ([["go", "17"], ["end", "17"]] * 20, "string", "go", "end"),
        ([[7, 1], [8, 1]] * 20, "int16", "7", "8"),
    ],
)
def test_markers_of_any_format_are_text(
    tmp_path: Path, rows: Rows, fmt: str, start: str, stop: str
) -> None:
    path = write_rig(tmp_path / "a.xdf", markers=rows, marker_format=fmt)
    unmatched = judged(tmp_path / "before", path)["markers"]
    assert unmatched.level == "warn"
    assert start in unmatched.found
    assert f'`trial_start = "{start}"`' in unmatched.do
    marked = {"markers": {"trial_start": start, "trial_stop": stop}}
    assert judged(tmp_path / "after", path, **marked)["markers"].level == "good"
    seen = looked(tmp_path / "more", markers=rows, marker_format=fmt, config=marked)
    assert seen.count.n == 20
    seen = looked(tmp_path / "none", markers=rows, marker_format=fmt)
    assert "no pair of them begins" in seen.troubles[0]
    assert "40 markers came" in seen.troubles[0]


def test_up_to_ten_of_the_markers_that_came_are_shown(tmp_path: Path) -> None:
    rows = [[f"event {i % 14}"] for i in range(40)]
    seen = looked(tmp_path, markers=rows)
    assert "'event 9' and 4 others" in seen.troubles[0]
    assert "'event 10'" not in seen.troubles[0]


def looked(folder: Path, config: dict[str, Any] | None = None, **rig: Any) -> Collected:
    """What collecting sees of a rig."""
    folder.mkdir(exist_ok=True)
    run = run_of(folder / "day", **(config or {}))
    write_rig(run.folder / "collect-1.xdf", **rig)
    run.progress.keep(recordings=("collect-1.xdf",))
    needs = replace(BaseNeeds.of(open_bundle(DEMO)), longest_silence_s=SHORTEST_GAP_S)
    seen = Collected(needs)
    seen.update(run)
    run.progress.close()
    return seen


def test_trials_while_a_stream_was_away_are_not_used_and_that_is_said(tmp_path: Path) -> None:
    whole = looked(tmp_path / "whole")
    assert (whole.count.n, whole.remarks) == (20, [])
    seen = looked(tmp_path / "away", spikes_away=(5.4, 9.2))
    assert not seen.troubles
    assert seen.count.n == 15
    assert seen.seconds == pytest.approx(whole.seconds - 3.8, abs=0.05)
    assert "no spikes from 5.4 to 9.2 s" in seen.left_out
    assert "5 trials are not used" in seen.left_out
    gone = looked(tmp_path / "gone", spikes_away=(12.4, 99.0))
    assert "No spikes since 12.4 s" in gone.troubles[0]
    assert gone.count.n == 12


def test_gaps_are_masked_in_the_session_that_is_learnt_from(tmp_path: Path) -> None:
    from streams.sessions.convert.convert import Reading, convert

    path = write_rig(tmp_path / "a.xdf", spikes_away=(5.4, 9.2))
    session = convert([path], "s/2026-01-01/a", Reading())
    gaps = find_gaps(session, ["cursor_velocity"], SHORTEST_GAP_S)
    assert [gap.what for gap in gaps] == ["spikes"]
    used = without_gaps(session, gaps)
    known = used.signal("cursor_velocity").at(np.array([5.0, 5.6, 7.0, 9.0, 9.5]))
    assert np.isfinite(known).all(axis=1).tolist() == [True, False, False, False, True]
    assert used.trials is not None
    assert not ((used.trials.start_s < 9.2) & (used.trials.stop_s > 5.4)).any()
    assert without_gaps(session, []) is session
    assert describe_gaps(session, []) == ""
    overlapping = [*gaps, *gaps]
    assert seconds_outside(session, overlapping) == pytest.approx(
        session.duration_s - 3.8, abs=0.05
    )


@pytest.mark.parametrize("shift_s", [1.8e9, -1.8e9, 40_000.0])
def test_nothing_is_made_of_the_length_of_stamps(tmp_path: Path, shift_s: float) -> None:
    path = write_rig(tmp_path / "a.xdf", position_shift_s=shift_s)
    found = judged(tmp_path / "day", path)
    stops = [one for one in found.values() if one.level == "stop"]
    assert stops
    assert all(one.code == 3 for one in stops)
    seen = looked(tmp_path / "more", position_shift_s=shift_s)
    assert seen.troubles


def test_streams_of_two_clocks_that_are_near_are_told(tmp_path: Path) -> None:
    found = judged(tmp_path, write_rig(tmp_path / "a.xdf", position_shift_s=-300.0))
    assert found["clocks"].level == "stop"
    assert "lie 320 s apart" in found["clocks"].found


def test_the_host_of_each_stream_is_asked_for() -> None:
    sections = {
        "spikes": {"name": "nsp", "hostname": "rig-a"},
        "markers": {"hostname": "rig-b"},
        "behavior": {"name": "a@b"},
    }
    config = CalibrateConfig.model_validate(sections)
    assert streams_to_record(config) == ["Spikes:nsp@rig-a", "Markers:@rig-b", "Position:a@b"]
    assert streams_to_record(config, "cues")[1:] == ["Markers:cues-markers", "Position:cues-cursor"]


def test_recordings_are_read_as_the_config_says() -> None:
    sections = {
        "markers": {"trial_start": "-1", "trial_stop": "-2"},
        "behavior": {"channels": ["left", "right"], "body": "hand"},
        "spikes": {"columns": ["unit", "other"], "ignore_units": [-1, "u0"]},
    }
    read = reading_of(CalibrateConfig.model_validate(sections), ("ch1/u1",))
    assert (read.trial_start, read.trial_stop) == ("-1", "-2")
    assert (read.columns, read.ignore_units) == (("unit", "other"), (-1, "u0"))
    assert (read.channels, read.body) == (("left", "right"), "hand")
    assert read.known_keys == ("ch1/u1",)


@pytest.mark.parametrize(
    "labels", [("channel", "unit", "peak"), ("probe", "code", "peak"), ("", "", "")]
)
def test_spikes_whose_labels_do_not_tell_are_named_in_the_config(
    tmp_path: Path, labels: Sequence[str]
) -> None:
    path = write_rig(tmp_path / "a.xdf", spike_labels=labels)
    stopped = judged(tmp_path / "before", path)["spikes"]
    assert (stopped.level, stopped.code) == ("stop", 3)
    assert "under [spikes]" in stopped.found
    assert "`columns = [" in stopped.found
    named = {"columns": ["channel", "unit", "other"]}
    assert judged(tmp_path / "after", path, spikes=named)["units"].level == "good"


def test_units_are_left_out(tmp_path: Path) -> None:
    path = write_rig(tmp_path / "a.xdf")
    assert judged(tmp_path / "all", path)["units"].found.startswith("29 units fire")
    two = {"ignore_units": ["ch3/u1", "ch4/u1"]}
    assert judged(tmp_path / "two", path, spikes=two)["units"].found.startswith("27 units fire")
    every = judged(tmp_path / "every", path, spikes={"ignore_units": [1]})
    assert "brought no spike" in every["spikes"].found


def test_a_host_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[spikes]\nhostname = 7\n")
    with pytest.raises(WizardError, match=r"spikes\.hostname"):
        load_config(tmp_path / "a.toml")
