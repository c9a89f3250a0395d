"""Links in the docs lead somewhere, and what the project says of itself agrees."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("clients/*.md")])
MADE = ("reference/cli.md", "reference/config.md")
"""Pages that are made when the site is built (`docs/hooks.py`)."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = ("streams", "decoders", "export", "calibration", "service", "tests", "benchmarks")
FOLLOWED = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [target for target in targets if not target.startswith(("http:", "https:"))]
    found = [target for target in local if not target.endswith(MADE)]
    assert [target for target in found if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("name", FOLLOWED)
def test_named_files_exist(name: str) -> None:
    named = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./]*)`", (ROOT / name).read_text())
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert {page for page in pages if f"({page})" not in readme} == set()


def test_version_and_licence_agree_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")


@pytest.mark.parametrize("room", ROOMS[:5])
def test_a_room_of_the_package_says_that_it_is_typed(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
