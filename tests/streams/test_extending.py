"""The example of `docs/extending.md`: a new input layout, from the page into the table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.errors import StreamUnfitError
from streams.lint.judge import lint
from streams.lsl.description import StreamDescription
from streams.spikes.kernels.choose import Kernels
from streams.spikes.layouts import table
from streams.spikes.layouts.layout import LayoutOptions
from tests.streams.lint_inputs import heard_of, spike_times
from tests.streams.ways import BOTH_WAYS

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
T_S = np.array([100.0, 100.002, 100.003])
CODES = np.array([[256 * 12 + 1], [-1], [256 * 300]], np.int32)


def stream(**fields: Any) -> StreamDescription:
    chosen = {"n_channels": 1, "rate_hz": 0.0, "format": "int32"} | fields
    return StreamDescription("amp", "Spikes", "amp-1", "host", uid="uid", **chosen)


@pytest.fixture(autouse=True)
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the example's file and its line in the table, as the page says."""
    section = PAGE.split("## A new input layout")[1].split("\n## ")[0]
    module, line = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "packed"}
    exec(compile(module, "packed.py", "exec"), names)
    names["LayoutKind"] = table.LayoutKind
    exec(f"kind = {line.strip()}", names)
    monkeypatch.setattr(table, "LAYOUTS", [names["kind"], *table.LAYOUTS])


@BOTH_WAYS
def test_the_new_layout_is_chosen_and_reads_spikes_and_keep_alives(kernels: Kernels) -> None:
    options = LayoutOptions(known_keys=("ch12/u1",), kernels=kernels)
    layout = table.layout_of(stream(), ("code",), options)
    for _ in range(2):
        found = layout.parse(CODES, T_S)
        assert [layout.keys[i] for i in found.unit] == ["ch12/u1", "ch300/u0"]
        assert (found.t_s.tolist(), found.keep_alive_s.tolist()) == ([100.0, 100.003], [100.002])
    assert layout.parse(CODES[::2].copy(), T_S[::2].copy()).unit.tolist() == [0, 1]


def test_a_stream_that_is_back_keeps_its_keys_and_another_kind_is_refused() -> None:
    options = LayoutOptions()
    before = table.layout_of(stream(), ("code",), options)
    before.parse(CODES, T_S)
    now = table.resumed_layout(before, stream(), ("code",), options)
    assert now.keys is before.keys
    with pytest.raises(StreamUnfitError, match="another kind"):
        table.resumed_layout(before, stream(), ("unit",), options)


def test_the_refusal_of_a_stream_names_the_new_layout() -> None:
    with pytest.raises(StreamUnfitError, match=r"no whole number.*256 \* channel \+ unit"):
        table.layout_of(stream(format="float32"), ("code",))
    with pytest.raises(StreamUnfitError, match=r"256 \* channel \+ unit"):
        table.layout_of(stream(), ("voltage",))


def test_lint_judges_the_new_layout() -> None:
    t_s, rng = spike_times(), np.random.default_rng(0)
    codes = (256 * rng.integers(0, 12, len(t_s)) + 1).astype(np.int32)[:, None]
    report = lint(heard_of(codes, t_s, t_s + 0.001, ("code",)), [])
    found = {finding.what: finding for finding in report.findings}
    assert found["layout"].level == "good"
    assert "12 fire" in found["units"].found


def test_the_old_layouts_are_read_as_before() -> None:
    assert table.layout_of(stream(), ("unit",)).bin_s is None
    assert table.layout_of(stream(rate_hz=50.0), ("a",)).bin_s == 0.02
