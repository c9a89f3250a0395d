"""A network link between two namespaces, carried packet by packet: `tc netem` for any kernel.

`python relay.py NAME_HERE NAME_THERE` makes two TUN devices and carries what enters one to the
other. Each line on its standard input changes the link: a JSON object with, per way (`to_there`,
`to_here`), `delay_ms`, `jitter_ms`, `loss` and `up`.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 2000


def make_device(name: str) -> int:
    """A TUN device; it lives as long as this process."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return handle


@dataclass
class Way:
    """One direction. Packets do not overtake each other: a later one waits for those before."""

    source: int
    sink: int
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    up: bool = True
    _waiting: list[tuple[float, int, bytes]] = field(default_factory=list)
    _n: int = 0
    _t_last_s: float = 0.0

    def change(self, **to: Any) -> None:
        for name, value in to.items():
            setattr(self, name, value)

    def take(self, chance: random.Random) -> None:
        """Take in a packet."""
        try:
            packet = os.read(self.source, MTU)
        except (BlockingIOError, OSError):
            return
        if not self.up or chance.random() < self.loss:
            return
        delay_s = 1e-3 * (self.delay_ms + chance.random() * self.jitter_ms)
        self._t_last_s = max(self._t_last_s, time.monotonic() + delay_s)
        self._n += 1
        heapq.heappush(self._waiting, (self._t_last_s, self._n, packet))

    def give(self) -> float:
        """Hand out what is due; return when more is."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            packet = heapq.heappop(self._waiting)[2]
            try:
                os.write(self.sink, packet)
            except OSError:  # its device is down
                continue
        return self._waiting[0][0] if self._waiting else float("inf")


def main(here: str, there: str) -> None:
    a, b = make_device(here), make_device(there)
    ways = {"to_there": Way(a, b), "to_here": Way(b, a)}
    chance = random.Random(0)
    sys.stdout.write("made\n")
    sys.stdout.flush()
    while True:
        t_next_s = min(way.give() for way in ways.values())
        wait_s = min(1.0, max(0.0, t_next_s - time.monotonic()))
        ready, _, _ = select.select([a, b, 0], [], [], wait_s)
        for way in ways.values():
            if way.source in ready:
                way.take(chance)
        if 0 in ready:
            line = sys.stdin.readline()
            if not line:
                return
            for name, to in json.loads(line).items():
                ways[name].change(**to)


if __name__ == "__main__":
    main(*sys.argv[1:])
