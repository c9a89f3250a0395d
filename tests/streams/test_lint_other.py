"""What `lint` finds in positions, markers and what streams say of themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from streams.lint.findings import Heard
from streams.lint.identity import made_anew
from streams.lint.judge import kind_of, lint
from streams.lsl.description import marker_text
from tests.streams.lint_inputs import bad, bad_of, described, heard_of, spike_times, spikes


def position(values: np.ndarray, labels: Sequence[str], rate_hz: float = 100.0) -> Heard:
    t_s = spike_times(1000)[-1] - 10.0 + (np.arange(len(values)) + 1.0) / rate_hz
    return heard_of(values, t_s, t_s + 1e-3, labels, type="Position", format="float32")


def wandering(n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2)).cumsum(axis=0)


@pytest.mark.parametrize("labels", [("cursor_x", "cursor_y"), ("X", "Y"), ("Cursor X", "Cursor Y")])
def test_a_sound_position(labels: Sequence[str]) -> None:
    report = lint(position(wandering(), labels), [])
    assert report.kind == "position"
    assert not bad(report)


def test_positions_that_are_missing_frozen_double_slow_or_without_axes() -> None:
    values = wandering()
    values[::7] = np.nan
    found = bad_of(position(values, ("cursor_x", "cursor_y")))
    assert set(found) == {"values"}
    assert found["values"].numbers["missing_values"] == 143
    values = wandering()
    values[:, 1] = values[:, 0]
    assert set(bad_of(position(values, ("x", "y")))) == {"doubled"}
    values[:, 1] = 3.0
    assert bad_of(position(values, ("x", "y")))["silent"].numbers["silent"] == ["y"]
    assert set(bad_of(position(wandering(100), ("left", "right"), 10.0))) == {"labels", "density"}


def markers(values: np.ndarray, fmt: str) -> Heard:
    t_s = spike_times(len(values))
    return heard_of(values, t_s, t_s + 0.001, (), type="Markers", format=fmt)


def test_markers_of_any_format_are_shown_as_text() -> None:
    texts = markers(np.array([[b"go 1"], [b"stop"], [b"go 1"]], object), "string")
    report = lint(texts, [])
    assert not bad(report)
    assert report.as_json()["measured"]["markers"] == ["go 1", "stop"]
    numbers = markers(np.array([[32769, 1], [32770, 1]], np.int32), "int32")
    found = bad_of(numbers)
    assert set(found) == {"format", "channels"}
    assert lint(numbers, []).as_json()["measured"]["markers"] == ["32769 1", "32770 1"]
    assert set(bad_of(markers(np.zeros((0, 1), object), "string"))) == {"markers"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"caf\xc3\xa9", "café"),
        ("go", "go"),
        (np.int32(-7), "-7"),
        (np.int64(2**60 + 1), str(2**60 + 1)),
        (np.float32(7.0), "7"),
        (0.5, "0.5"),
        (np.float32(0.1), "0.1"),
        (float("nan"), "nan"),
    ],
)
def test_a_marker_as_text(value: object, text: str) -> None:
    assert marker_text(value) == text


@pytest.mark.parametrize(
    ("source_id", "looks"),
    [
        ("a34e2b9c-93de-4f7a-8f12-5d3f0a9b1c77", "UUID"),
        ("nsp-A34E2B9C-93DE-4F7A-8F12-5D3F0A9B1C77", "UUID"),
        ("-5461822930147823210", "pylsl's own default"),
        ("rig_1767225600", "time of its start"),
        ("rig-2026-01-02T09", "time of its start"),
        ("9f86d081884c7d659a2feaa0c55ad015", "random"),
        ("Unity_4242", "process"),
        ("pid:17", "process"),
        ("NSP-0123", ""),
        ("00:1A:7D:DA:71:13", ""),
        ("001a7dda7113", ""),
        ("SimulatedSpikeEvents", ""),
        ("UN-2019.05.43", ""),
    ],
)
def test_a_source_id_that_changes_with_every_start(source_id: str, looks: str) -> None:
    told = made_anew(source_id, lambda number: number == 4242)
    assert (looks in told) if looks else not told


def test_streams_that_cannot_be_told_apart() -> None:
    heard = spikes()
    mine = heard.description
    twin = described(uid="other", hostname="spare-pc")
    found = bad(lint(heard, [mine, twin]))
    assert found["doubles"].level == "stop"
    assert "spare-pc" in found["doubles"].found
    found = bad(lint(heard, [mine, described(uid="other", source_id="NSP-8")]))
    assert found["doubles"].level == "warn"
    assert not bad(lint(heard, [mine, described(uid="other", source_id="", name="more")]))
    assert bad_of(spikes(source_id=""))["source_id"].level == "warn"


@pytest.mark.parametrize(
    ("fields", "labels", "kind"),
    [
        ({}, (), "spikes"),
        ({"type": "SpikeEvents"}, ("0", "1"), "spikes"),
        ({"type": "Events"}, ("electrode", "sort_code"), "spikes"),
        ({"rate_hz": 50.0}, ("a", "b", "c"), "counts"),
        ({"type": "SpikingRates", "rate_hz": 50.0}, (), "counts"),
        ({"type": "Trigger", "format": "string"}, (), "markers"),
        ({"type": "markers"}, (), "markers"),
        ({"type": "MoCap", "format": "float32"}, (), "position"),
        ({"type": "Tracker", "format": "float32"}, ("hand_x", "hand_y"), "position"),
        ({"type": "EEG", "rate_hz": 250.0, "format": "float32"}, ("FpZ", "Fz", "Oz"), "other"),
    ],
)
def test_what_a_stream_carries(fields: dict[str, object], labels: Sequence[str], kind: str) -> None:
    assert kind_of(described(**fields), labels) == kind


def test_labels_that_are_missing_or_double() -> None:
    eeg = np.random.default_rng(0).normal(size=(500, 3))
    t_s = spike_times(500)
    for labels, says in ((("Fz", "", "Oz"), "1 of 3"), (("Fz", "Fz", "Oz"), "called Fz")):
        heard = heard_of(eeg, t_s, t_s + 0.001, labels, type="EEG", format="float32")
        assert says in bad_of(heard)["labels"].found


def test_a_stream_that_does_not_open_is_unfit() -> None:
    heard = Heard(
        described(), (), np.zeros((0, 3)), np.zeros(0), np.zeros(0), 0.0, None, trouble="no answer"
    )
    report = lint(heard, [])
    assert report.is_unfit
    assert "no answer" in {one.found for one in report.findings}
