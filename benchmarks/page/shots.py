"""`python -m benchmarks.page.shots FOLDER [NAME ...]`: pictures of a demo's page, and of faults.

Faults are real, but for those that need another machine or worn memory: there a relay says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.page.chromium import Chromium, Tab
from benchmarks.page.measure import hover_ms
from benchmarks.page.relay import Relay
from service.bench.rig import Rig
from service.demo.demo import SHIPPED_DEMO, served
from service.demo.page import start_page
from service.loop.validity import VALIDITIES
from streams.lsl.inlets import quieten
from streams.wire.client import DaemonClient

SIZES = {"screen": (1920, 1080), "tablet": (1180, 820), "tablet-upright": (820, 1180)}
WARM_S, JUDGED_S, SETTLED_S = 45.0, 35.0, 2.0
WORD = "document.body?.dataset.validity"
TOLD = (
    "overdue",
    "incomplete",
    "clock_uncertain",
    "spikes_rejected",
    "unknown_units",
    "memory_damaged",
)
"""Reasons that the relay gives."""
RECORDED_S = 60.0
DISK = "size=1m"
Do = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: how it begins and ends, and the word that shows that it is seen."""

    begin: Do
    end: Do
    word: str
    after_s: float = SETTLED_S


def main() -> int:
    """Start a demo and take the pictures, or those of these names."""
    quieten()
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    if not wanted or "recorded" in wanted:
        _recorded(folder)
    if not wanted or set(wanted) - {"units", "recorder", "recorded"}:
        _demo(folder, wanted)
    if not wanted or "units" in wanted:
        _other_units(folder)
    if not wanted or "recorder" in wanted:
        with _small_disk() as disk:
            _full_disk(folder, disk)
    return 0


def _demo(folder: Path, wanted: Sequence[str]) -> None:
    """The page of a demo that works, then each fault in turn; the last one ends the daemon."""
    with _loop({}, "--day", "8") as (rig, url, client, relay):
        subject = rig.pids()["subject"]

        def says(reason: str) -> Fault:
            return Fault(
                lambda: setattr(relay, "reason", reason),
                lambda: setattr(relay, "reason", ""),
                VALIDITIES[reason],
            )

        faults = {
            "stale": Fault(
                lambda: os.kill(subject, signal.SIGSTOP),
                lambda: os.kill(subject, signal.SIGCONT),
                "stale",
            ),
            "paused": Fault(lambda: client.ask("pause"), lambda: client.ask("resume"), "paused"),
            **{reason: says(reason) for reason in TOLD},
            "gone": Fault(lambda: rig.stop("daemon"), lambda: None, "silent"),
            "page_gone": Fault(lambda: rig.stop("page"), lambda: None, "silent", 3.0),
        }
        chosen = {name: of for name, of in faults.items() if not wanted or name in wanted}
        asyncio.run(_shoot(url, folder, chosen, is_whole=not wanted or "page" in wanted))


def _other_units(folder: Path) -> None:
    """Units that died, changed, or came since the decoder was made."""
    with _loop({}, "--day", "40", "--units", "104") as (_, url, _, _):
        asyncio.run(_shoot(url, folder, {"units": _nothing()}, warm_s=JUDGED_S))


def _full_disk(folder: Path, disk: Path) -> None:
    """A recording that ends, as its disk is full."""
    record = {"record.enabled": True, "record.folder": str(disk / "recordings")}
    with _loop(record, "--day", "8") as (_, url, _, _):
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(2**12))
        asyncio.run(_shoot(url, folder, {"recorder": _nothing()}, warm_s=JUDGED_S))


def _recorded(folder: Path) -> None:
    """A recorded run with its time bar, the source standing still in the middle of it."""
    name = f"spikeloop-shots-{os.getpid()}"
    with Rig() as rig:
        runs = rig.path / "recordings"
        endpoints = rig.serve("daemon", name, served(SHIPPED_DEMO, record=runs, name=name))
        rig.start(
            "subject", "simulate", "--name", name, "--decodes", endpoints["decode"], "--day", "8"
        )
        client, subject = DaemonClient(endpoints["control"]), rig.pids()["subject"]
        Event().wait(RECORDED_S / 2)
        os.kill(subject, signal.SIGSTOP)
        Event().wait(4.0)
        os.kill(subject, signal.SIGCONT)
        Event().wait(RECORDED_S / 4)
        client.ask("pause")
        Event().wait(3.0)
        client.ask("resume")
        Event().wait(RECORDED_S / 4)
        rig.stop("subject")
        rig.stop("daemon")
        (run,) = (one for one in runs.iterdir() if one.is_dir())
        announced = rig.path / "page.json"
        rig.start(
            "page", "page", "--run", str(run), "--bind", "127.0.0.1:0",
            "--announce", str(announced),
        )  # fmt: skip
        url = rig.wait_for_file(announced, "page")["url"]
        asyncio.run(_wind(url, folder))


async def _wind(url: str, folder: Path) -> None:
    async with Chromium() as browser:
        for look in ("light", "dark"):
            tab = await browser.open(url, dark=look == "dark", hears_network=True)
            await tab.until(f"{WORD} === 'ok'", 60.0)
            for size in ("screen", "tablet"):
                await tab.resize(*SIZES[size])
                await tab.value(
                    f"document.getElementById('at').value = {RECORDED_S / 2 + 3};"
                    "document.getElementById('at').onchange()"
                )
                await asyncio.sleep(2 * SETTLED_S)
                await tab.screenshot(folder / f"recorded-{look}-{size}.png")
            sys.stdout.write(f"complaints: {tab.complaints[:3]}, hosts: {tab.hosts}\n")


def _nothing() -> Fault:
    return Fault(lambda: None, lambda: None, "ok")


@contextmanager
def _loop(config: dict[str, Any], *subject: str) -> Iterator[tuple[Rig, str, DaemonClient, Relay]]:
    """A demo whose page hears the daemon through a relay."""
    name = f"spikeloop-shots-{os.getpid()}"
    with Rig() as rig:
        endpoints = rig.serve("daemon", name, served(SHIPPED_DEMO) | config)
        rig.start("subject", "simulate", "--name", name, "--decodes", endpoints["decode"], *subject)
        relay = Relay(endpoints["decode"])
        relay.start()
        url = start_page(rig, {**endpoints, "decode": relay.endpoint}, SHIPPED_DEMO)
        try:
            yield rig, url, DaemonClient(endpoints["control"]), relay
        finally:
            relay.end()


@contextmanager
def _small_disk() -> Iterator[Path]:
    """A disk of a megabyte; needs root."""
    with Rig() as rig:
        disk = rig.path / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(disk)], check=True)
        try:
            yield disk
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


async def _shoot(
    url: str,
    folder: Path,
    faults: dict[str, Fault],
    *,
    is_whole: bool = False,
    warm_s: float = WARM_S,
) -> None:
    async with Chromium() as browser:
        tabs = {
            look: await browser.open(url, dark=look == "dark", hears_network=True)
            for look in ("light", "dark")
        }
        await asyncio.sleep(warm_s)
        for look, tab in tabs.items():
            await tab.ask("Page.bringToFront")
            await tab.value("document.getElementById('order').value = 'direction'")
            await tab.value("document.getElementById('order').onchange()")
            if is_whole:
                await _every_size(tab, folder, f"page-{look}")
        for name, fault in faults.items():
            await _shoot_fault(tabs, name, folder, fault)
        for tab in tabs.values():
            sys.stdout.write(f"complaints: {tab.complaints[:3]}, hosts: {tab.hosts}\n")


async def _every_size(tab: Tab, folder: Path, name: str) -> None:
    for size, (width, height) in SIZES.items():
        await tab.resize(width, height)
        await asyncio.sleep(SETTLED_S)
        await tab.screenshot(folder / f"{name}-{size}.png")
    await tab.resize(*SIZES["screen"])
    await asyncio.sleep(SETTLED_S)
    told = await hover_ms(tab)
    await tab.screenshot(folder / f"{name}-hover.png")
    # No note on a unit in the pictures that follow.
    await tab.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    sys.stdout.write(f"hover: {told} ms\n")


async def _shoot_fault(tabs: dict[str, Tab], name: str, folder: Path, fault: Fault) -> None:
    """Light and dark on a screen; light on a tablet."""
    for look, tab in tabs.items():
        await tab.ask("Page.bringToFront")
        await tab.resize(*SIZES["screen"])
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        if look == "light":
            await loop.run_in_executor(None, fault.begin)
        with suppress(TimeoutError):
            await _shown(tab, fault.word)
        await asyncio.sleep(fault.after_s)
        await tab.screenshot(folder / f"{name}-{look}.png")
    tab = tabs["dark"]
    await tab.resize(*SIZES["tablet"])
    await asyncio.sleep(SETTLED_S)
    await tab.screenshot(folder / f"{name}-tablet.png")
    await tab.resize(*SIZES["screen"])
    fault.end()
    if fault.word not in ("silent", "ok"):
        await _shown(tab, "ok")


def _shown(tab: Tab, word: str) -> Awaitable[float]:
    return tab.until(f"{WORD} === '{word}'", 30.0)


if __name__ == "__main__":
    sys.exit(main())
