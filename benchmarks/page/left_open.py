"""A page that is left open: memory of its process and of the browser, minute by minute."""

from __future__ import annotations

import asyncio
import os
import statistics
from typing import Any

from benchmarks.page.chromium import Chromium, Tab, resident_mib
from service.bench import machine
from service.bench.rig import Rig
from service.demo.demo import SHIPPED_DEMO, served
from service.demo.page import start_page

SAMPLE_S, WARM_MINUTES = 5.0, 6
"""Events and validity are shown for five minutes: until then the page has more to show."""
SIZE = (1180, 820)
HEAP = "performance.memory ? performance.memory.usedJSHeapSize : 0"
FRAMES = "spikeloop.frames"


def left_open(minutes: int) -> dict[str, Any]:
    """Leave the page of a demo open in a browser.

    Args:
        minutes: how long; more than six, of which the first six are not judged.

    Returns:
        Of the page's process and of all the browser's, `mib` (the median of each minute) and
        `growth` (the highest minute after the sixth over the sixth, less 1); `heap_mib` of the
        page's objects in the browser, the least of each minute, for rubbish is let lie for a while.
    """
    name, before = f"spikeloop-page-{os.getpid()}", machine.processor_ticks()
    with Rig() as rig:
        endpoints = rig.serve("daemon", name, served(SHIPPED_DEMO))
        rig.start(
            "subject", "simulate", "--day", "8", "--name", name, "--decodes", endpoints["decode"]
        )
        url = start_page(rig, endpoints, SHIPPED_DEMO)
        told = asyncio.run(_watch(url, rig.pids()["page"], minutes))
        rig.check_all()
    return told | {"minutes": minutes, "machine": machine.describe(before)}


async def _watch(url: str, page: int, minutes: int) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    held: dict[str, list[list[float]]] = {"page": [], "browser": [], "heap": []}
    frames_per_s = []
    async with Chromium() as browser:
        tab: Tab = await browser.open(url, width=SIZE[0], height=SIZE[1])
        await tab.until(f"window.spikeloop && {FRAMES} > 30", 100.0)
        t_begin_s = loop.time()
        for minute in range(minutes):
            for of in held.values():
                of.append([])
            n_before, t_before_s = await tab.value(FRAMES), loop.time()
            while loop.time() < t_begin_s + 60.0 * (minute + 1):
                held["page"][-1].append(resident_mib(page))
                held["browser"][-1].append(browser.mib())
                held["heap"][-1].append(await tab.value(HEAP) / 2**20)
                await asyncio.sleep(SAMPLE_S)
            frames_per_s.append((await tab.value(FRAMES) - n_before) / (loop.time() - t_before_s))
        complaints = tab.complaints
    heap_mib = [round(min(of), 1) for of in held.pop("heap")]
    return {name: _summary(of) for name, of in held.items()} | {
        "heap_mib": heap_mib,
        "frames_per_s": [round(n, 1) for n in frames_per_s],
        "complaints": complaints,
    }


def _summary(of_minutes: list[list[float]]) -> dict[str, Any]:
    medians = [statistics.median(of) for of in of_minutes]
    warm = medians[WARM_MINUTES - 1 :]
    growth = max(warm) / warm[0] - 1.0 if len(warm) > 1 else None
    return {"mib": [round(one, 1) for one in medians], "growth": growth}
