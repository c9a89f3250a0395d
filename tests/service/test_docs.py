"""`docs/wire.md` names what the daemon says and takes, and nothing else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

from service.config import ShapingConfig
from service.daemon import control
from service.daemon.access import CHANGED, COUNTED, NEEDED
from service.daemon.control import HANDLERS
from service.daemon.last_words import HUNG
from service.loop.slots import Change
from streams.wire.roles import Role

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "wire.md").read_text()


def section(heading: str) -> str:
    _, found, rest = DOC.partition(f"\n{heading}\n")
    assert found, f"docs/wire.md has no {heading!r}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.M)[0]


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of each row of a table, by the name in its first."""
    lines = [line for line in section(heading).splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_event_is_described() -> None:
    text = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    reported = set(re.findall(r"(?:report|on_change|Happened|Warned)\(\s*\"(\w+)\"", text))
    others = {HUNG, CHANGED, *COUNTED}
    assert reported | set(get_args(Change)) | others == set(rows("### Events"))


def test_every_command_is_described_with_its_arguments() -> None:
    table = rows("### Commands")
    assert set(table) == set(HANDLERS)
    for name in set(HANDLERS) - {"shape"}:
        handler = HANDLERS[name]
        arguments = {argument for argument, _ in (*handler.required, *handler.optional)}
        assert arguments <= set(re.findall(r"`(\w+)`", table[name][0]))
        assert arguments or not table[name][0]


def test_every_command_stands_beside_its_role() -> None:
    told = rows("### Roles")
    assert set(told) == {role.title for role in Role}
    for role in Role:
        named = set(re.findall(r"`(\w+)`", told[role.title][0]))
        assert named == {name for name, needed in NEEDED.items() if needed is role}


def test_every_setting_of_shape_is_described() -> None:
    handler = HANDLERS["shape"]
    settings = {name for name, _ in handler.optional}
    assert settings == set(ShapingConfig.model_fields) | {"lead_s"}
    told = section("### Commands").partition("`shape` sets")[2]
    assert settings <= set(re.findall(r"`(\w+)`", told))


@pytest.mark.parametrize("field", re.findall(r'"(\w+)": ', inspect.getsource(control._status)))
def test_what_status_adds_is_described(field: str) -> None:
    assert f"`{field}`" in section("### Commands").partition("`status` adds")[2]


def test_every_test_that_the_faults_name_exists() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    for folder, name in re.findall(r"`((?:\w+/)*)(test_\w+\.py)`", text):
        assert (ROOT / (folder or "tests/faults/") / name).is_file(), f"{folder}{name}"


def test_every_test_of_a_fault_is_named() -> None:
    pages = [ROOT / "docs" / name for name in ("faults.md", "security.md")]
    told = " ".join(page.read_text() for page in pages)
    tests = [path.name for path in (ROOT / "tests" / "faults").glob("test_*.py")]
    assert [name for name in tests if name not in told] == []
