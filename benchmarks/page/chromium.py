"""Debian's chromium without a screen, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado.websocket import WebSocketClientConnection, websocket_connect

BINARY = shutil.which("chromium") or shutil.which("chromium-browser")
ABSENT = "no chromium on this machine: `apt-get install chromium`"
NICENESS = 5
"""Here the processor draws; on a rig that is work of another machine, or of a card."""
USER = 65534
"""Whom root runs it as: root's own browser raises its threads to nice -8, which no user's may."""
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio",
    "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-default-apps",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows", "--remote-debugging-port=0",
)  # fmt: skip
STARTS_WITHIN_S, ANSWERS_WITHIN_S = 60.0, 60.0


class Chromium:
    """One browser; each tab is a `Tab`. Used within one event loop.

    Args:
        flags: more of its command line.

    Raises:
        FileNotFoundError: there is no chromium.
    """

    def __init__(self, *flags: str) -> None:
        if BINARY is None:
            raise FileNotFoundError(ABSENT)
        self._folder = tempfile.TemporaryDirectory(prefix="spikeloop-chromium-")
        user = USER if os.geteuid() == 0 and is_open_to_all(Path(self._folder.name)) else None
        if user is not None:
            os.chown(self._folder.name, user, user)
        command = [
            "nice",
            "-n",
            str(NICENESS),
            BINARY,
            *FLAGS,
            *flags,
            f"--user-data-dir={self._folder.name}",
        ]
        self.process = subprocess.Popen(
            [*command, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env=os.environ | {"HOME": self._folder.name},
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        self._socket: WebSocketClientConnection | None = None
        self._n = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}

    async def __aenter__(self) -> Chromium:
        port_file = Path(self._folder.name) / "DevToolsActivePort"
        t_end_s = time.monotonic() + STARTS_WITHIN_S
        while not port_file.exists() or len(port_file.read_text().split()) < 2:
            if time.monotonic() > t_end_s:
                raise TimeoutError("chromium did not start")
            await asyncio.sleep(0.05)
        port, path = port_file.read_text().split()
        self._socket = await websocket_connect(
            f"ws://127.0.0.1:{port}{path}",
            on_message_callback=self._take,
            max_message_size=2**28,
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._socket is not None:
            self._socket.close()
        self.process.terminate()
        self.process.wait(20)
        await asyncio.sleep(0.1)
        for _ in range(20):  # its children still write for a moment
            try:
                self._folder.cleanup()
                return
            except OSError:
                await asyncio.sleep(0.1)

    def _take(self, message: str | bytes | None) -> None:
        if message is None:
            return
        said = json.loads(message)
        if "id" in said:
            waiting = self._answers.pop(said["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(said)
        elif (tab := self._tabs.get(said.get("sessionId", ""))) is not None:
            tab.take(said["method"], said["params"])

    async def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol; its result.

        Raises:
            RuntimeError: it was refused.
        """
        if self._socket is None:
            raise RuntimeError("chromium is used in `async with`")
        self._n += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._n] = answer
        request = {"id": self._n, "method": method, "params": parameters}
        await self._socket.write_message(
            json.dumps(request | ({"sessionId": session} if session else {}))
        )
        said = await asyncio.wait_for(answer, ANSWERS_WITHIN_S)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    def pids(self) -> list[int]:
        """All its processes."""
        return [self.process.pid, *_descendants(self.process.pid)]

    def busy_s(self) -> float:
        """Processor time of all its processes so far."""
        return sum(_busy_s(pid) for pid in self.pids())

    def mib(self) -> float:
        """Memory of all its processes; what several of them share is counted once."""
        return sum(resident_mib(pid) for pid in self.pids())

    async def open(
        self,
        url: str,
        *,
        width: int = 1920,
        height: int = 1080,
        dark: bool = False,
        hears_network: bool = False,
    ) -> Tab:
        """Open a tab.

        Args:
            url: of the page.
            width: of the window, pixels.
            height: of the window, pixels.
            dark: the scheme that the page is asked for.
            hears_network: `Tab.hosts` is filled in. The browser then tells all that it is sent a
                second time, to this process: not for measurements.
        """
        # A window each: what lies behind in a window is not drawn.
        made = await self.ask("Target.createTarget", url="about:blank", newWindow=True)
        target = made["targetId"]
        attached = await self.ask("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, attached["sessionId"])
        self._tabs[attached["sessionId"]] = tab
        for domain in ("Page", "Runtime", "Log", *(["Network"] if hears_network else [])):
            await tab.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.ask("Emulation.setEmulatedMedia", features=[scheme])
        await tab.resize(width, height)
        await tab.ask("Page.navigate", url=url)
        return tab


class Tab:
    """One page.

    Attributes:
        complaints: errors and warnings of the console, exceptions, and failed requests.
        hosts: host of each request, where the tab was opened with `hears_network`.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []
        self.hosts: set[str] = set()

    def take(self, method: str, told: dict[str, Any]) -> None:
        """Note an event of the protocol."""
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"])[:2000])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(told["args"])[:2000])
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(json.dumps(told["entry"])[:2000])
        elif method == "Network.requestWillBeSent":
            url = urlsplit(told["request"]["url"])
            if url.scheme not in ("data", "blob"):
                self.hosts.add(url.netloc)
        elif method == "Network.webSocketCreated":
            self.hosts.add(urlsplit(told["url"]).netloc)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to this tab; its result."""
        return await self._browser.ask(method, self._session, **parameters)

    async def value(self, expression: str) -> Any:
        """Evaluate JavaScript, awaiting a promise.

        Raises:
            RuntimeError: it threw.
        """
        told = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in told:
            raise RuntimeError(f"{expression}: {told['exceptionDetails']}")
        return told["result"].get("value")

    async def until(self, expression: str, within_s: float = 60.0) -> float:
        """Wait until an expression is true; seconds that it took.

        Raises:
            TimeoutError: it did not become true.
        """
        t_s = time.monotonic()
        while not await self.value(f"Boolean({expression})"):
            waited_s = time.monotonic() - t_s
            if waited_s > within_s:
                raise TimeoutError(f"{expression} within {within_s} s; {self.complaints}")
            await asyncio.sleep(0.02)
        return time.monotonic() - t_s

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the window, pixels."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    async def close(self) -> None:
        """Close the tab."""
        await self.ask("Page.close")

    async def screenshot(self, path: Path) -> None:
        """Write a picture of the window, PNG."""
        told = await self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))


def is_open_to_all(folder: Path) -> bool:
    """Return True if any user may enter the folders above: in a private one root stays root."""
    return all(one.stat().st_mode & 0o001 for one in folder.parents)


def resident_mib(pid: int) -> float:
    """Memory of a process, its share of what it has in common with others; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _busy_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            yield int(child)
            yield from _descendants(int(child))
