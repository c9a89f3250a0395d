"""`docs/streams.md` names the keys and labels that there are; its configs are ones that we read."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from service.config import InputConfig, ServeConfig, parse_config
from streams.spikes.layouts.columns import KNOWN_LABELS

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "streams.md").read_text()
SOURCES = (
    "Blackrock", "Plexon", "Ripple", "Open Ephys", "SpikeGLX", "Intan", "TDT",
    "Neural Data Simulator", "Neuropixels by OneBox",
)  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOC, flags=re.M | re.S)


def section(heading: str) -> str:
    parts = re.split(r"^##+ ", DOC, flags=re.M)
    found = [part for part in parts if part.startswith(heading)]
    assert len(found) == 1, f"docs/streams.md has {len(found)} sections {heading!r}"
    return found[0]


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_input_section_is_one_that_serve_reads(text: str) -> None:
    table = tomllib.loads(text)
    assert set(table) == {"input"}
    assert parse_config(table, ServeConfig, "docs/streams.md").input.name


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_its_section_and_its_row(source: str) -> None:
    for part in ("**Today.**", "**Shortest way.**", "**The stream.**"):
        told = section(source)
        if source != "Neural Data Simulator" or part != "**Shortest way.**":
            assert part in told
    assert "```toml\n[input]" in section(source)
    assert f"\n| {source}" in section("Common sources at a glance")


def test_every_key_of_input_is_described() -> None:
    rows = [line for line in section("Keys under").splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert described == set(InputConfig.model_fields)


def test_every_known_label_is_listed() -> None:
    lines = section("What is read").splitlines()
    for column, labels in KNOWN_LABELS.items():
        row = next(line for line in lines if line.startswith(f"| {column} |"))
        assert re.findall(r"`(\w+)`", row) == list(labels)


def test_the_sender_shown_is_the_one_in_examples() -> None:
    assert (ROOT / "examples" / "sender.py").read_text() in blocks("python")


@pytest.mark.parametrize("text", blocks("python"))
def test_every_program_is_python(text: str) -> None:
    assert ast.parse(text).body
