"""The page of a live loop in a real browser: a simulated subject, a daemon, the page, chromium."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.page.chromium import ABSENT, BINARY, Chromium, Tab
from service.demo.demo import served
from tests.system.conftest import write_config
from tests.system.running import Daemon, Process, clock, unique, wait_until

pytestmark = [pytest.mark.skipif(BINARY is None, reason=ABSENT), pytest.mark.alone]
WORD = "document.body?.dataset.validity"
FIGURES = {
    "raster": ("rows", "y"), "plane": ("cursor", "x"), "latency": ("band", "x"),
    "stages": ("stages", "y"), "rate": ("rate_data", "x"), "timeline": ("stretches", "left"),
    "array": ("array_data", "x"), "polar": ("polar_data", "x"), "trace0": ("decoded0", "x"),
    "trace1": ("decoded1", "x"),
}  # fmt: skip
"""By figure, a source and a column of it that must not stay empty."""
TEXTS = ("words", "facts", "r2-note", "trials-note", "latency-note", "miss-note", "fates", "clock",
         "units", "units-note", "array-note", "events")  # fmt: skip


SIZES = [(1920, 1080), (1180, 820), (820, 1180)]
"""A screen across the room, and a tablet either way."""


class Loop(NamedTuple):
    """A closed loop with its page."""

    daemon: Daemon
    subject: Process
    page: Process
    url: str
    token: str

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").removesuffix("/")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder, stream = tmp_path_factory.mktemp("page"), unique("subject")
    demo = served("shipped:demo", "onnxruntime-cpu")
    sections = {
        "decoder": {key.partition(".")[2]: v for key, v in demo.items() if "decoder." in key},
        "input": {"wait_s": 60.0},
        "beat": {"settle_ms": "auto"},
    }
    config = write_config(folder, stream, Path("shipped:demo"), **sections)
    announced, token = folder / "page.json", folder / "token"
    daemon = Daemon(folder, config)
    daemon.connect()
    subject = Process(
        folder, "simulate", "--name", stream, "--decodes", daemon.endpoint, "--day", "8"
    )
    page = Process(
        folder, "page", "--decode", daemon.endpoint, "--control", daemon.control,
        "--bundle", "shipped:demo", "--bind", "127.0.0.1:0", "--token", str(token),
        "--announce", str(announced),
    )  # fmt: skip
    try:
        wait_until(announced.exists)
        daemon.until_validity("ok")
        url = json.loads(announced.read_text())["url"]
        yield Loop(daemon, subject, page, url, token.read_text().strip())
    finally:
        for process in (page, subject, daemon):
            process.kill()


def look(
    loop: Loop, test: Callable[[Tab], Awaitable[None]], fragment: str = "", **size: bool | int
) -> None:
    """Open the page, wait for `ok`, run the test; then nothing may have gone wrong."""

    async def inside() -> None:
        async with Chromium() as browser:
            tab = await browser.open(loop.url + fragment, **size)
            await tab.until(f"{WORD} === 'ok'")
            await test(tab)
            assert tab.complaints == []
            assert tab.hosts == {loop.host}

    asyncio.run(inside())


async def filled(tab: Tab, within_s: float = 120.0) -> None:
    """Wait until every figure and every text of the page has content."""
    for figure, (source, column) in FIGURES.items():
        held = f"spikeloop.plots.find('{figure}', '{source}').data['{column}'].length"
        await tab.until(f"document.querySelector('#{figure} > *') && {held} > 0", within_s)
    for text in TEXTS:
        await tab.until(f"document.getElementById('{text}').textContent.length > 0", within_s)
    await tab.until("spikeloop.raster.counts.some((n) => n > 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_panel_of_a_live_page_has_content_and_moves(loop: Loop, scheme: str) -> None:
    async def test(tab: Tab) -> None:
        await filled(tab)
        assert await tab.value("document.documentElement.dataset.theme") == scheme
        seen, t_end_s = set(), clock.now() + 30.0
        while len(seen) <= 5 and clock.now() < t_end_s:
            seen.add(tuple(await tab.value("spikeloop.fast.cursor") or ()))
        assert len(seen) > 5
        before = await tab.value("spikeloop.frames")
        await tab.until(f"spikeloop.frames > {before + 10}")
        for width, height in SIZES:
            await tab.resize(width, height)
            # The figures are laid out again a moment after the window.
            await tab.until("document.documentElement.scrollWidth <= innerWidth")

    look(loop, test, dark=scheme == "dark")


def test_the_page_turns_stale_with_the_source_and_comes_back(loop: Loop) -> None:
    """It tells what a client of the wire hears within ten pictures of the browser."""

    async def test(tab: Tab) -> None:
        before = await tab.value("spikeloop.frames")
        ten_pictures_s = await tab.until(f"spikeloop.frames >= {before + 10}")
        loop.daemon.listen()
        loop.subject.signal(signal.SIGSTOP)
        t_stopped_s = clock.now()
        try:
            shown_s = await tab.until(f"{WORD} === 'stale'")
            loop.daemon.listen()
            stale = [one for one in loop.daemon.heard.decodes if one["validity"] == "stale"]
            heard_s = next(t for one in stale if (t := one["t_sent"]) > t_stopped_s) - t_stopped_s
            # A third of a second where the browser draws at its rate.
            assert shown_s < heard_s + ten_pictures_s
            said = "document.getElementById('remedy').textContent"
            await tab.until(f"{said}.includes('is the amplifier')")
        finally:
            loop.subject.signal(signal.SIGCONT)
        await tab.until(f"{WORD} === 'ok'")

    look(loop, test)


def test_who_has_the_token_pauses_and_marks_in_the_browser(loop: Loop) -> None:
    async def test(tab: Tab) -> None:
        assert await tab.value("location.hash") == ""  # it does not stay in the address
        await tab.until("!document.getElementById('open-control').hidden")
        await tab.until("spikeloop.slow && spikeloop.slow.shaping.gain === 1")
        await tab.value("document.getElementById('open-control').click()")
        for text, answer, word in (
            ("Pause", "no", "ok"),
            ("Pause", "yes", "paused"),
            ("Resume", "yes", "ok"),
        ):
            await click(tab, text)
            await tab.value(f"document.querySelector('#confirm button[value={answer}]').click()")
            await tab.until(f"{WORD} === '{word}'")
        await tab.value(
            "document.getElementById('mark-text').value = 'block 2';"
            "document.getElementById('mark').requestSubmit()"
        )
        await tab.value("document.querySelector('#confirm button[value=yes]').click()")
        await tab.until("document.getElementById('events').textContent.includes('block 2')")

    look(loop, test, f"#token={loop.token}")
    loop.daemon.listen()
    events = [one["event"] for one in loop.daemon.heard.events]
    assert [name for name in events if name in ("paused", "resumed", "mark")] == [
        "paused", "resumed", "mark",
    ]  # fmt: skip


async def click(tab: Tab, text: str) -> None:
    buttons = "[...document.querySelectorAll('#controls button')]"
    await tab.value(f"{buttons}.find((one) => one.textContent === '{text}').click()")


def test_who_has_no_token_can_only_look(loop: Loop) -> None:
    async def test(tab: Tab) -> None:
        await tab.until("!document.getElementById('open-control').hidden")
        assert await tab.value("document.getElementById('controls').hidden")
        assert await tab.value("document.getElementById('mark').hidden")

    look(loop, test)


def test_the_page_says_when_its_daemon_is_gone_and_finds_it_again(loop: Loop) -> None:
    async def test(tab: Tab) -> None:
        loop.daemon.signal(signal.SIGSTOP)
        for child in children(loop.daemon.popen.pid):
            os.kill(child, signal.SIGSTOP)
        try:
            await tab.until(f"{WORD} === 'silent'")
            said = "document.getElementById('remedy').textContent"
            assert await tab.value(said) == "is the daemon running?"
        finally:
            for child in children(loop.daemon.popen.pid):
                os.kill(child, signal.SIGCONT)
            loop.daemon.signal(signal.SIGCONT)
        await tab.until(f"{WORD} === 'ok'")

    look(loop, test)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in listed.split()]
