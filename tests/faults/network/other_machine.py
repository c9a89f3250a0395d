"""Another machine: a namespace with a network, a host name and a clock of its own.

A link that a test can delay, lose packets on, or cut leads there. It needs root and Linux.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.system.running import wait_until

RELAY = Path(__file__).with_name("relay.py")
PREFIX = 24


def _may_be() -> bool:
    tools = all(shutil.which(tool) for tool in ("ip", "unshare", "hostname"))
    if not tools or os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK):
        return False
    return (
        subprocess.run(["unshare", "--net", "--uts", "--time", "true"], check=False).returncode == 0
    )


needs_another_machine = pytest.mark.skipif(
    sys.platform != "linux" or not _may_be(), reason="needs namespaces, TUN devices, and root"
)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class OtherMachine:
    """The namespace and the link to it.

    Attributes:
        here, there: addresses of the link's two ends.
        silences: see below.

    Args:
        number: tells it from others, 0 to 255.
        silences: where a sender there notes for how long it sent nothing.
    """

    def __init__(self, number: int, silences: Path = Path(os.devnull)) -> None:
        self.silences = silences
        self._ns = f"spikeloop-{os.getpid()}-{number}"
        self.here, self.there = f"10.78.{number}.1", f"10.78.{number}.2"
        self.hostname = f"other-machine-{number}"
        devices = f"sl{number}h{os.getpid() % 10000}", f"sl{number}t{os.getpid() % 10000}"
        self._started: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self._ns)
        self._relay = subprocess.Popen(
            [sys.executable, str(RELAY), *devices], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._relay.stdout is not None
        self._relay.stdout.readline()
        _ip("link", "set", devices[1], "netns", self._ns)
        within = ("-n", self._ns)
        for where, device, address in (
            ((), devices[0], self.here),
            (within, devices[1], self.there),
        ):
            _ip(*where, "addr", "add", f"{address}/{PREFIX}", "dev", device)
            _ip(*where, "link", "set", device, "up")
        _ip(*within, "link", "set", "lo", "up")

    def link(self, *, to_here: dict[str, Any] | None = None, to_there: Any = None) -> None:
        """Change the link: `delay_ms`, `jitter_ms`, `loss`, `up` of each way."""
        changed = {"to_here": to_here or {}, "to_there": to_there or {}}
        assert self._relay.stdin is not None
        self._relay.stdin.write(json.dumps(changed).encode() + b"\n")
        self._relay.stdin.flush()

    def both(self, **to: Any) -> None:
        """Change both ways alike."""
        self.link(to_here=to, to_there=to)

    def run(
        self, command: Sequence[str], *, clock_ahead_s: int = 0, **more: Any
    ) -> subprocess.Popen[bytes]:
        """Start a program there, whose monotonic clock is so many seconds ahead of ours."""
        clock = ["--time", "--monotonic", str(clock_ahead_s)] if clock_ahead_s else []
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.hostname, *command]
        started = subprocess.Popen(
            ["ip", "netns", "exec", self._ns, "unshare", "--uts", *clock, *named], **more
        )
        self._started.append(started)
        return started

    def reach_by_lsl(self, folder: Path) -> Path:
        """A file for LSLAPICFG with which a program here finds the streams there."""
        path = folder / "lsl_api.cfg"
        path.write_text(f"[lab]\nKnownPeers = {{{self.there}}}\n[log]\nlevel = -1\n")
        return path

    def close(self) -> None:
        """End all that runs there, and take it away."""
        for started in self._started:
            started.kill()
            started.wait()
        self._relay.kill()
        self._relay.communicate()
        wait_until(
            lambda: subprocess.run(["ip", "netns", "del", self._ns], check=False).returncode == 0
        )
