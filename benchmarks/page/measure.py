"""One daemon, and the page with browsers beside it and not, in turn."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from benchmarks.page.chromium import Chromium, Tab
from service.bench import machine
from service.bench.listener import Listener
from service.bench.loop import Settings, start_daemon, start_sender
from service.bench.rig import Rig, beside
from service.daemon.realtime import set_priority
from service.short_slices import wake_soon
from service.telemetry.percentiles import percentiles

SAMPLE_S = 2.0
FRAMES = "window.spikeloop ? window.spikeloop.frames : 0"
HEAP = "performance.memory ? performance.memory.usedJSHeapSize : 0"
FLOOR_S = 4.0
EMPTY = "() => 0"
PAINTED = """(() => {
  const paper = document.body.appendChild(document.createElement("canvas"));
  [paper.width, paper.height] = [innerWidth, innerHeight];
  const pen = paper.getContext("2d"), image = pen.createImageData(paper.width, paper.height);
  const pixels = new Uint32Array(image.data.buffer);
  return () => {  // at half of the screen's rate, as the page does
    if (floor.n % 2) return;
    pixels.fill(0xff000000 + floor.n);
    pen.putImageData(image, 0, 0);
  };
})()"""
FLOOR = """window.floor = {n: 0};
const paint = %s;
const draw = () => { requestAnimationFrame(draw); paint(); floor.n++; };
draw();"""
"""What a page draws that draws nothing, and one that paints all of itself anew."""
TIP = "[...document.querySelectorAll('body > [popover]')].some((one) => one.offsetWidth > 0)"
"""The raster's note on a unit is there."""


@dataclass(slots=True)
class Watched:
    """What was seen of the browser.

    Attributes:
        is_drawing: set once every tab has drawn.
        frames: of the first tab, (seconds, pictures so far).
        heap_bytes: of the first tab's objects.
        complaints: of all consoles.
        cores: share of one core that all its processes took.
        hover_ms: from the pointer's move to the note on a unit; None if it never came.
        floor_per_s: pictures a second of pages that do nothing else.
    """

    is_drawing: Event = field(default_factory=Event)
    frames: list[tuple[float, int]] = field(default_factory=list)
    heap_bytes: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    cores: float = 0.0
    hover_ms: float | None = None
    floor_per_s: dict[str, float] = field(default_factory=dict)

    def frames_per_s(self) -> list[float]:
        """Pictures a second, between each two looks."""
        pairs = zip(self.frames, self.frames[1:], strict=False)
        return [(n - n_before) / (t - t_before) for (t_before, n_before), (t, n) in pairs]


def measure(
    settings: Settings,
    *,
    n_tabs: int,
    n_rounds: int,
    is_drawn: bool,
    is_apart: bool,
    priority: int,
) -> dict[str, Any]:
    """Measure the daemon without a page and with one, in turn; what each cost.

    Args:
        settings: the daemon and its source; `seconds` of each turn.
        n_tabs: tabs of one browser that show the page.
        n_rounds: turns of each.
        is_drawn: a browser draws; else programs read what it would be sent.
        is_apart: the browser is held to half of the cores, to leave the others alone as one on
            another machine would.
        priority: SCHED_FIFO priority of sender and client, so that what is measured is how long
            the daemon waits for the browser, and not they; 0 for none.

    Returns:
        Ratios of the p99 with the page to that without; where a browser draws also to that while
        the same browser paints windows of its own, for what drawing takes of this machine's cores
        is no matter of the page's.
    """
    cores = sorted(os.sched_getaffinity(0))
    browsers = frozenset(cores[len(cores) // 2 :] if is_apart else cores)
    wake_soon()
    stream, before = f"spikeloop-page-{os.getpid()}", machine.processor_ticks()
    rounds: list[dict[str, Any]] = []
    with Rig() as rig:
        client = _Client(start_daemon(rig, "daemon", stream, settings), priority)
        seconds = n_rounds * 2 * (settings.seconds + 60) + 120
        start_sender(rig, stream, settings, seconds, priority)
        client.listen(15.0)  # the settle time is measured first
        for _ in range(n_rounds):
            without = client.listen(settings.seconds)
            painting = _painting(client, settings, n_tabs, browsers) if is_drawn else {}
            with_page = _with_page(rig, client, settings, n_tabs, browsers if is_drawn else None)
            rounds.append({"without": without} | painting | with_page)
    ratios = _ratios(rounds, "without")
    to_drawing = {"p99_ratios_to_painting": _ratios(rounds, "painting")} if is_drawn else {}
    return {
        "settings": settings.as_dict()
        | {"tabs": n_tabs, "drawn": is_drawn, "hop_ms": settings.hop_s * 1e3}
        | {"apart": is_apart, "cores_of_browser": len(browsers), "cores": len(cores)}
        | {"priority_of_sender_and_client": priority},
        "p99_ratio": statistics.median(ratios),
        "p99_ratios": ratios,
        **to_drawing,
        "rounds": rounds,
        "machine": machine.describe(before),
    }


def _ratios(rounds: list[dict[str, Any]], base: str) -> list[float]:
    return [one["with"]["p99"] / one[base]["p99"] for one in rounds]


@dataclass(frozen=True, slots=True)
class _Client:
    """Who listens to the daemon, at a real-time priority or none."""

    endpoint: str
    priority: int

    def listen(
        self, seconds: float, also: Callable[[dict[str, Any] | None], None] = lambda decode: None
    ) -> dict[str, float]:
        """Percentiles of the end to end time over so many seconds."""
        listener = Listener()
        if self.priority and not (had := set_priority(self.priority))[0]:
            sys.stderr.write(f"the client: {had[1]}\n")
        try:
            listener.listen(self.endpoint, seconds, also)
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return percentiles(listener.end_to_end_ms().tolist())


def _with_page(
    rig: Rig, client: _Client, settings: Settings, n_tabs: int, browsers: Set[int] | None
) -> dict[str, Any]:
    """One turn with a page; `browsers` are the cores of a browser, None for readers."""
    announced = rig.path / "page.json"
    announced.unlink(missing_ok=True)
    rig.start(
        "page", "page", "--decode", client.endpoint, "--bundle", str(rig.path / "bundle"),
        "--bind", "127.0.0.1:0", "--announce", str(announced),
    )  # fmt: skip
    page = rig.wait_for_file(announced, "page")
    url, usage = page["url"], machine.Usage({"page": page["pid"]})
    try:
        if browsers is not None:
            told = _drawn(url, client, settings, n_tabs, usage, browsers)
        else:
            readers = [sys.executable, "-m", "benchmarks.page.readers", url, str(n_tabs)]
            rig.run("readers", readers)
            client.listen(5.0)  # the page has found its streams by then
            told = {"with": client.listen(settings.seconds, usage.sample_after)}
            rig.check("readers")
    finally:
        rig.stop("page")
    return told | {"page": usage.summary()["page"]}


def _painting(
    client: _Client, settings: Settings, n_tabs: int, cores: Set[int]
) -> dict[str, dict[str, float]]:
    """One turn beside a browser whose windows paint something of their own."""
    is_painting = Event()

    async def paint(ending: Event) -> None:
        async with Chromium() as browser:
            for _ in range(n_tabs):
                await (await browser.open("about:blank")).value(FLOOR % PAINTED)
            is_painting.set()
            while not ending.is_set():
                await asyncio.sleep(0.2)

    def look(ending: Event) -> None:
        os.sched_setaffinity(0, cores)
        asyncio.run(paint(ending))

    with beside(look):
        is_painting.wait(60.0)
        return {"painting": client.listen(settings.seconds)}


def _drawn(
    url: str,
    client: _Client,
    settings: Settings,
    n_tabs: int,
    usage: machine.Usage,
    cores: Set[int],
) -> dict[str, Any]:
    watched = Watched()

    def look(ending: Event) -> None:
        os.sched_setaffinity(0, cores)  # of this thread, and of what it starts
        asyncio.run(_look(url, n_tabs, watched, ending))

    with beside(look):
        watched.is_drawing.wait(120.0)
        listened = client.listen(settings.seconds, usage.sample_after)
    frames = watched.frames_per_s()
    return {
        "with": listened,
        "frames_per_s": {"median": statistics.median(frames), "least": min(frames)},
        "heap_mib": [round(held / 2**20, 1) for held in watched.heap_bytes],
        "floor_frames_per_s": watched.floor_per_s,
        "browser_cores": watched.cores,
        "hover_ms": watched.hover_ms,
        "complaints": watched.complaints,
    }


async def _look(url: str, n_tabs: int, watched: Watched, ending: Event) -> None:
    """Open the tabs, and note how the first of them gets on."""
    loop = asyncio.get_running_loop()
    async with Chromium() as browser:
        for name, paint in (("empty", EMPTY), ("painted", PAINTED)):
            watched.floor_per_s[name] = await _floor(browser, paint)
        tabs: list[Tab] = [await browser.open(url) for _ in range(n_tabs)]
        for tab in tabs:
            await tab.until(f"({FRAMES}) > 30", 100.0)
        watched.is_drawing.set()
        t_begin_s, busy_s = loop.time(), browser.busy_s()
        while not ending.is_set():
            watched.frames.append((loop.time(), await tabs[0].value(FRAMES)))
            watched.heap_bytes.append(await tabs[0].value(HEAP))
            await asyncio.sleep(SAMPLE_S)
        watched.cores = (browser.busy_s() - busy_s) / (loop.time() - t_begin_s)
        watched.hover_ms = await hover_ms(tabs[0])
        watched.complaints += [one for tab in tabs for one in tab.complaints]


async def _floor(browser: Chromium, paint: str) -> float:
    """Pictures a second of a page that does nothing but this."""
    loop = asyncio.get_running_loop()
    tab = await browser.open("about:blank")
    await tab.value(FLOOR % paint)
    t_s, n = loop.time(), await tab.value("floor.n")
    await asyncio.sleep(FLOOR_S)
    per_s: float = (await tab.value("floor.n") - n) / (loop.time() - t_s)
    await tab.close()
    return per_s


async def hover_ms(tab: Tab) -> float | None:
    """Point at the middle of the raster; milliseconds to the note on the unit, if it comes."""
    await tab.ask("Page.bringToFront")
    at = "document.getElementById('raster').getBoundingClientRect()"
    x, y = await tab.value(f"[{at}.x + {at}.width / 2, {at}.y + {at}.height / 2]")
    await tab.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x - 9, y=y)
    await tab.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    try:
        return 1e3 * await tab.until(TIP, 10.0)
    except TimeoutError:
        return None
