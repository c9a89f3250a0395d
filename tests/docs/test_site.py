"""The site builds without a warning, has every page, and fetches nothing when it is read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import GROUPS, bench
from service.config import ServeConfig
from tests.docs.blocks import ROOT, pages

MADE = {"clients.md", "reference/cli.md", "reference/config.md"}
FETCHED = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]*\"|url\(['\"]?https?:"
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a dead link or a page outside of the navigation is an error."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    named = {str(page.relative_to(ROOT / "docs")) for page in pages()} | MADE
    built = {str(page.relative_to(site).with_suffix(".md")) for page in site.rglob("*.html")}
    assert built == named | {"404.md"}


def test_files_that_a_page_shows_are_shown(site: Path) -> None:
    text = (site / "tutorials" / "stream.html").read_text()
    assert "IRREGULAR_RATE" in text


def test_programs_that_a_page_tells_to_save_can_be_saved(site: Path) -> None:
    """Whoever has the wheel and the site alone has no `clients/`."""
    for name in (
        "python/spikeloop_client.py",
        "python/task.py",
        "node/task.js",
        "node/package.json",
    ):
        saved = site / "clients" / name
        assert saved.read_text() == (ROOT / "clients" / name).read_text()
        assert f'href="../clients/{name}"' in (site / "tutorials" / "task.html").read_text()


def test_nothing_is_fetched_when_it_is_read(site: Path) -> None:
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert FETCHED.findall(file.read_text()) == [], file


def test_the_command_line_page_has_every_command(site: Path) -> None:
    text = (site / "reference" / "cli.html").read_text()
    names = [(name,) for group in GROUPS for name in group.COMMANDS]
    for words in (*names, *(("bench", name) for name in bench.COMMANDS)):
        assert f"Usage: spikeloop {' '.join(words)} " in text


def test_the_config_page_has_every_key(site: Path) -> None:
    text = (site / "reference" / "config.html").read_text()
    for section, model in ServeConfig.model_fields.items():
        assert f"<code>[{section}]</code>" in text
        for key in getattr(model.annotation, "model_fields", ()):
            assert f"<code>{key}</code>" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser: chromium")
def test_the_search_finds_in_a_folder_without_a_web_server(site: Path) -> None:
    shown = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--virtual-time-budget=20000", f"file://{site}/index.html?q=keep-alive",
        ],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert re.search(r"\d+ matching documents", shown)
