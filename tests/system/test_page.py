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
    "raster": ("rows", "y"), "latency": ("band", "x"), "stages": ("stages", "y"),
    "rate": ("rate_data", "x"), "timeline": ("stretches", "left"), "array": ("array_data", "x"),
    "polar": ("polar_data", "x"),
}  # fmt: skip
"""By figure, a source and a column of it that must not stay empty."""
LAYERS = ("raster", "plane", "trace0", "trace1")
"""Figures with a layer upon them, which must not stay blank."""
INKED = """(() => {
  const paper = document.querySelector("#%s > canvas");
  if (!paper || !paper.width) return false;
  // Of a copy: a canvas that is read again and again is a warning of the console.
  const copy = new OffscreenCanvas(paper.width, paper.height).getContext("2d");
  copy.drawImage(paper, 0, 0);
  const { data } = copy.getImageData(0, 0, paper.width, paper.height);
  return new Uint32Array(data.buffer).some((pixel) => pixel >>> 24);
})()"""
LIES_UPON = """(() => {
  const [view] = spikeloop.plots.views["%s"].roots, { bbox } = view.frame;
  const whole = view.el.getBoundingClientRect();
  const layer = document.querySelector("#%s > canvas").getBoundingClientRect();
  const off = [layer.x - whole.x - bbox.left, layer.y - whole.y - bbox.top,
               layer.width - bbox.width, layer.height - bbox.height];
  return bbox.width > 20 && off.every((pixels) => Math.abs(pixels) < 1);
})()"""
PAINTED_AS_A_WHOLE = """(async () => {
  const { Raster, N_COLUMNS } = await import("/static/raster.js");
  const N_ROWS = 7, bit = new Raster();
  const send = (raster, first, n) => {
    const message = new Uint8Array(16 + n * N_ROWS).map(() => (Math.random() < 0.3) + 1);
    new Uint32Array(message.buffer, 0, 4).set([1, first, n, N_ROWS]);
    raster.take(message.buffer);
  };
  const marks = [0, 1, 2, 3, 0, 0, 1];
  bit.setRows(marks.map(String), marks);
  send(bit, 3, 1);
  for (let head = 4; head < 5 * N_COLUMNS; head += Math.floor(Math.random() ** 8 * 700)) {
    const late = Math.min(head, Math.floor(Math.random() * 30));
    // A browser that was behind gets all that came meanwhile.
    const first = Math.max(Math.min(bit.newest + 1, head - late), head + 1 - N_COLUMNS);
    send(bit, Math.max(0, first), head + 1 - Math.max(0, first));
    if (Math.random() < 0.1) continue;  // two messages for one picture
    const painted = bit.paint().slice();
    bit.paintAll();
    if (String(painted) !== String(bit.paint())) return head;
  }
  return -1;
})()"""
"""The first column at which the raster, painted bit by bit, is not what it is as a whole."""
TEXTS = ("words", "facts", "r2-note", "trials-note", "latency-note", "miss-note", "fates", "clock",
         "units", "units-note", "array-note", "events")  # fmt: skip
DRAWN_ANEW = """(async () => {
  const { Strip } = await import("/static/strip.js");
  const view = { frame: { bbox: { left: 0, top: 0, width: 400, height: 100 } } };
  const plot = { x_range: { start: -5, end: 0.1 }, y_range: { start: -1.2, end: 1.2 } };
  const [bit, whole] = [0, 1].map(() => new Strip(document.createElement("div"), view));
  const rows = [], lines = [{ rows, at: 1, colour: "#f00", width: 2, dash: [] }];
  let now = 1000;
  for (let n = 0; n < 400; n++) {
    now += (n % 7 ? 1 : 3) / 30;
    for (let k = 0; k < 3; k++)
      rows.push([now - 0.03 + k / 100, n % 40 < 3 ? null : Math.sin(n / 9 + k / 27)]);
    while (rows[0][0] < now - 5) rows.shift();
    bit.draw(plot, now, lines);
  }
  whole.draw(plot, now, lines);
  const [a, b] = [bit, whole].map(({ canvas: { width, height }, pen }) =>
    pen.getImageData(0, 0, width, height).data);
  let n = 0, nOther = 0;
  for (let i = 3; i < a.length; i += 4) {
    n += a[i] > 0 || b[i] > 0;
    nOther += Math.abs(a[i] - b[i]) > 127;
  }
  return [n, nOther / n];
})()"""
"""Pixels of a trace, and the share that is not as in one drawn as a whole."""

REFUSED_THEN_ALLOWED = """(() => {
  const buttons = [...document.querySelectorAll("#controls button")];
  const pause = buttons.find((one) => one.textContent === "Pause");
  for (const answer of ["no", "no", "yes"]) {
    pause.click();
    document.querySelector(`#confirm button[value=${answer}]`).click();
  }
})()"""
"""A question that was answered by no, and the next one at once by yes: one command."""

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
            tab = await browser.open(loop.url + fragment, hears_network=True, **size)
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
    for figure in LAYERS:
        await tab.until(INKED % figure, within_s)
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


def test_a_raster_that_is_painted_bit_by_bit_is_the_whole(loop: Loop) -> None:
    async def test(tab: Tab) -> None:
        assert await tab.value(PAINTED_AS_A_WHOLE) == -1

    look(loop, test)


def test_a_trace_that_is_drawn_bit_by_bit_is_the_whole(loop: Loop) -> None:
    async def test(tab: Tab) -> None:
        n, share = await tab.value(DRAWN_ANEW)
        assert n > 1000
        assert share < 0.01  # edges, where two pieces meet

    look(loop, test)


def test_layers_lie_upon_the_frames_of_their_figures_whatever_the_size(loop: Loop) -> None:
    """Decodes would else be read off an axis that is not theirs."""

    async def test(tab: Tab) -> None:
        await filled(tab)
        for width, height in SIZES:
            await tab.resize(width, height)
            for figure in LAYERS:
                await tab.until(LIES_UPON % (figure, figure))
            assert await tab.value("[innerWidth, innerHeight]") == [width, height]

    look(loop, test)


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
        await tab.value(REFUSED_THEN_ALLOWED)
        await tab.until(f"{WORD} === 'paused'")
        for text, answer, word in (
            ("Resume", "no", "paused"),
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
