"""Sources that are not like ours, in processes of their own: no decode by `auto` lacks spikes.

The short form of `python -m benchmarks.sources`, all at once: eight daemons, for minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import only_full

pytestmark = [pytest.mark.alone, only_full]

ROOT = Path(__file__).parents[2]
SOURCES = ("by-channel", "jitter", "disorderly", "silent", "old")
RUNS, WITHIN_S = 3, 150
Row = Mapping[str, Any]


def run(*arguments: str) -> tuple[int, dict[tuple[str, str], Row]]:
    """The exit code, and what each source's phases showed."""
    command = [
        sys.executable, "-m", "benchmarks.sources", "--json", "--together", "--units", "20",
        "--seconds", "6", "--backend", "onnxruntime-cpu", "--priority", "0", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert done.stdout, done.stderr
    rows: list[Row] = json.loads(done.stdout)["sources"]
    return done.returncode, {(row["source"], row["phase"]): row for row in rows}


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Row]:
    """What was found: of the first run in which nothing was lacking, of three."""
    arguments = [part for source in SOURCES for part in ("--source", source)]
    for _ in range(RUNS):  # ten daemons on few cores: one may look later than it would alone
        code, rows = run(*arguments)
        if code == 0:
            return rows
    pytest.fail(str([row for row in rows.values() if row["lacking"]]))


def test_every_phase_was_decoded(found: dict[tuple[str, str], Row]) -> None:
    phases = ("before", "meanwhile", "after")
    changing = [(source, phase) for source in ("disorderly", "silent") for phase in phases]
    assert set(found) == {("by-channel", ""), ("jitter", ""), ("old", ""), *changing}
    assert all(row["decodes"] > 50 for row in found.values())
    assert all(row["ok"] > 0.9 for row in found.values()), [
        (at, row["ok"], row["reasons"]) for at, row in found.items()
    ]


@pytest.mark.parametrize("at", [("jitter", ""), ("old", ""), ("silent", "meanwhile")])
def test_what_is_in_order_is_cut_at_its_watermark(
    found: dict[tuple[str, str], Row], at: tuple[str, str]
) -> None:
    row = found[at]
    assert row["cut_shares"]["watermark"] > 0.8
    assert row["disorder_ms"] == 0.0
    assert row["sent_ms"]["auto"][0] < row["sent_ms"]["settled"][0]


def test_what_comes_by_channel_is_cut_at_the_end_of_its_block(
    found: dict[tuple[str, str], Row],
) -> None:
    row = found["by-channel", ""]
    assert 1.0 < row["disorder_ms"] <= 5.5
    assert row["cut_shares"]["watermark"] > 0.8


def test_what_turns_disorderly_is_waited_for_and_told(
    found: dict[tuple[str, str], Row],
) -> None:
    before, meanwhile = found["disorderly", "before"], found["disorderly", "meanwhile"]
    assert before["disorder_ms"] == 0.0
    assert meanwhile["disorder_ms"] > 1.0
    assert "disorder" in meanwhile["events"]
    assert meanwhile["cut_shares"].get("watermark", 0.0) < before["cut_shares"]["watermark"]
