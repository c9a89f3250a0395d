"""One daemon, and the page with browsers beside it and not, in turn."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from benchmarks.page.chromium import Chromium, Tab
from service.bench import machine
from service.bench.listener import Listener
from service.bench.loop import Settings, start_daemon, start_sender
from service.bench.rig import Rig, beside
from service.telemetry.percentiles import percentiles

SAMPLE_S = 2.0
FRAMES = "window.spikeloop ? window.spikeloop.frames : 0"
HEAP = "performance.memory ? performance.memory.usedJSHeapSize : 0"


@dataclass(slots=True)
class Watched:
    """What was seen of the browser: (seconds, frames so far) and bytes of its processes."""

    is_drawing: Event = field(default_factory=Event)
    frames: list[tuple[float, int]] = field(default_factory=list)
    heap_bytes: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def frames_per_s(self) -> list[float]:
        """Pictures a second, between each two looks."""
        pairs = zip(self.frames, self.frames[1:], strict=False)
        return [(n - n_before) / (t - t_before) for (t_before, n_before), (t, n) in pairs]


def measure(settings: Settings, *, n_tabs: int, n_rounds: int, is_drawn: bool) -> dict[str, Any]:
    """Measure the daemon without a page and with one, in turn; what each cost.

    Args:
        settings: the daemon and its source; `seconds` of each turn.
        n_tabs: tabs of one browser that show the page.
        n_rounds: turns of each.
        is_drawn: a browser draws; else programs read what it would be sent.
    """
    stream, before = f"spikeloop-page-{os.getpid()}", machine.processor_ticks()
    rounds: list[dict[str, Any]] = []
    with Rig() as rig:
        endpoint = start_daemon(rig, "daemon", stream, settings)
        seconds = n_rounds * 2 * (settings.seconds + 60) + 120
        start_sender(rig, stream, settings, seconds=seconds)
        _listen(endpoint, 15.0)  # the settle time is measured first
        for _ in range(n_rounds):
            without = _listen(endpoint, settings.seconds)
            with_page = _with_page(rig, endpoint, settings, n_tabs, is_drawn=is_drawn)
            rounds.append({"without": without} | with_page)
    ratios = [one["with"]["p99"] / one["without"]["p99"] for one in rounds]
    return {
        "settings": settings.as_dict()
        | {"tabs": n_tabs, "drawn": is_drawn, "hop_ms": settings.hop_s * 1e3},
        "p99_ratio": statistics.median(ratios),
        "p99_ratios": ratios,
        "rounds": rounds,
        "machine": machine.describe(before),
    }


def _listen(
    endpoint: str, seconds: float, also: Callable[[dict[str, Any] | None], None] = lambda d: None
) -> dict[str, float]:
    """Percentiles of the end to end time over so many seconds."""
    listener = Listener()
    listener.listen(endpoint, seconds, also)
    return percentiles(listener.end_to_end_ms().tolist())


def _with_page(
    rig: Rig, endpoint: str, settings: Settings, n_tabs: int, *, is_drawn: bool
) -> dict[str, Any]:
    announced = rig.path / "page.json"
    announced.unlink(missing_ok=True)
    rig.start(
        "page", "page", "--decode", endpoint, "--bundle", str(rig.path / "bundle"),
        "--bind", "127.0.0.1:0", "--announce", str(announced),
    )  # fmt: skip
    page = rig.wait_for_file(announced, "page")
    url, usage = page["url"], machine.Usage({"page": page["pid"]})
    try:
        if is_drawn:
            told = _drawn(url, endpoint, settings, n_tabs, usage)
        else:
            readers = [sys.executable, "-m", "benchmarks.page.readers", url, str(n_tabs)]
            rig.run("readers", readers)
            _listen(endpoint, 5.0)  # the page has found its streams by then
            told = {"with": _listen(endpoint, settings.seconds, usage.sample_after)}
            rig.check("readers")
    finally:
        rig.stop("page")
    return told | {"page": usage.summary()["page"]}


def _drawn(
    url: str, endpoint: str, settings: Settings, n_tabs: int, usage: machine.Usage
) -> dict[str, Any]:
    watched = Watched()
    with beside(lambda ending: asyncio.run(_look(url, n_tabs, watched, ending))):
        watched.is_drawing.wait(120.0)
        listened = _listen(endpoint, settings.seconds, usage.sample_after)
    frames = watched.frames_per_s()
    return {
        "with": listened,
        "frames_per_s": {"median": statistics.median(frames), "least": min(frames)},
        "heap_mib": [round(held / 2**20, 1) for held in watched.heap_bytes],
        "complaints": watched.complaints,
    }


async def _look(url: str, n_tabs: int, watched: Watched, ending: Event) -> None:
    """Open the tabs, and note how the first of them gets on."""
    loop = asyncio.get_running_loop()
    async with Chromium() as browser:
        tabs: list[Tab] = [await browser.open(url) for _ in range(n_tabs)]
        for tab in tabs:
            await tab.until(f"({FRAMES}) > 30", 100.0)
        watched.is_drawing.set()
        while not ending.is_set():
            watched.frames.append((loop.time(), await tabs[0].value(FRAMES)))
            watched.heap_bytes.append(await tabs[0].value(HEAP))
            await asyncio.sleep(SAMPLE_S)
        watched.complaints += [one for tab in tabs for one in tab.complaints]
