"""`python -m benchmarks.page.shots FOLDER`: pictures of the page of a demo, and of its faults."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.page.chromium import Chromium, Tab
from service.bench.rig import Rig
from service.demo.demo import SHIPPED_DEMO, served
from service.demo.page import start_page
from streams.lsl.inlets import quieten
from streams.wire.client import DaemonClient

SIZES = {"screen": (1920, 1080), "tablet": (1180, 820), "tablet-upright": (820, 1180)}
WARM_S, SETTLED_S = 45.0, 2.0
WORD = "document.body.dataset.validity"


def main() -> int:
    """Start a demo and take the pictures."""
    quieten()
    folder, name = Path(sys.argv[1]), f"spikeloop-shots-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    with Rig() as rig:
        endpoints = rig.serve("daemon", name, served(SHIPPED_DEMO))
        rig.start(
            "subject", "simulate", "--day", "8", "--name", name, "--decodes", endpoints["decode"]
        )
        url = start_page(rig, endpoints, SHIPPED_DEMO)
        client = DaemonClient(endpoints["control"])
        subject = rig.pids()["subject"]
        faults: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "stale": (
                lambda: os.kill(subject, signal.SIGSTOP),
                lambda: os.kill(subject, signal.SIGCONT),
            ),
            "paused": (lambda: client.ask("pause"), lambda: client.ask("resume")),
        }
        asyncio.run(_shoot(url, folder, faults))
    return 0


async def _shoot(
    url: str,
    folder: Path,
    faults: dict[str, tuple[Callable[[], object], Callable[[], object]]],
) -> None:
    async with Chromium() as browser:
        tabs = {dark: await browser.open(url, dark=dark) for dark in (False, True)}
        await asyncio.sleep(WARM_S)
        for dark, tab in tabs.items():
            await tab.ask("Page.bringToFront")
            await tab.value("document.getElementById('order').value = 'direction'")
            await tab.value("document.getElementById('order').onchange()")
            for size, (width, height) in SIZES.items():
                await tab.resize(width, height)
                await asyncio.sleep(SETTLED_S)
                await tab.screenshot(folder / f"{size}-{'dark' if dark else 'light'}.png")
        tab = tabs[False]
        await tab.ask("Page.bringToFront")
        await tab.resize(*SIZES["screen"])
        for word, (begin, end) in faults.items():
            await _shoot_fault(tab, word, folder, begin, end)
        for tab in tabs.values():
            sys.stdout.write(f"complaints: {tab.complaints}, hosts: {tab.hosts}\n")


async def _shoot_fault(
    tab: Tab,
    word: str,
    folder: Path,
    begin: Callable[[], object],
    end: Callable[[], object],
) -> None:
    begin()
    await _shown(tab, word)
    await asyncio.sleep(SETTLED_S)
    await tab.screenshot(folder / f"{word}.png")
    end()
    await _shown(tab, "ok")


def _shown(tab: Tab, word: str) -> Awaitable[float]:
    return tab.until(f"{WORD} === '{word}'", 60.0)


if __name__ == "__main__":
    sys.exit(main())
