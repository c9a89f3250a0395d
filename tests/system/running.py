"""Runs spikeloop as a lab does: real processes, real LSL, real ZeroMQ, nothing mocked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from streams.clock import MonotonicClock
from streams.wire.curve_keys import CurveKeys
from streams.wire.schema import Command, Reply, decode_reply, encode
from streams.wire.sockets import DecodeSubscriber, request

POLL_S = 0.005
WITHIN_S = 240.0
"""Ends a test that hangs, on a crowded machine too; it measures nothing."""

DATA = Path(__file__).parents[3] / "shared" / "data"
ANY_PORT = "tcp://127.0.0.1:*"
clock = MonotonicClock()
T = TypeVar("T")
_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"


class HungError(AssertionError):
    """What a test waited for did not come."""


def unique(what: str) -> str:
    """A name that no other LSL stream on this network has."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


def wait_until(
    condition: Callable[[], T],
    each: Callable[[], object] = lambda: None,
    within_s: float = WITHIN_S,
) -> T:
    """The first true value of `condition`, asked every few milliseconds; `each` runs before it."""
    t_end_s = clock.now() + within_s
    while clock.now() < t_end_s:
        each()
        if found := condition():
            return found
        clock.sleep_until(clock.now() + POLL_S)
    raise HungError(f"nothing within {within_s:g} s")


def keep_on(seconds: float, each: Callable[[], object]) -> None:
    """Do `each` every few milliseconds for so long."""
    t_end_s = clock.now() + seconds
    wait_until(lambda: clock.now() >= t_end_s, each, seconds + WITHIN_S)


def toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A config file; JSON writes the same scalars and lists as TOML."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
        for name, section in sections.items()
    )


class Process:
    """`spikeloop ARGUMENTS` in a process group of its own.

    Args:
        folder: where its output goes.
        arguments: of the command line.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out, self._err = folder / f"{unique('out')}.txt", folder / f"{unique('err')}.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", _RUN, *arguments],
                stdout=out,
                stderr=err,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """What it wrote on its standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote on its standard error so far."""
        return self._err.read_text(errors="replace")

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self.popen.send_signal(number)

    def code(self) -> int:
        """Wait for its end; its exit code."""
        return self.popen.wait(WITHIN_S)

    def left_running(self) -> bool:
        """Whether anything of its process group still runs."""
        try:
            os.killpg(self.popen.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """End the whole group at once."""
        if self.left_running():
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(WITHIN_S)


@dataclass(slots=True)
class Heard:
    """What the daemon published, in order."""

    decodes: list[dict[str, Any]] = field(default_factory=list)
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    shadows: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)


class Daemon(Process):
    """`spikeloop serve` on free ports, and a client that keeps everything it publishes.

    Args:
        folder: where its files go.
        config: its config file.
        arguments: more of the command line.

    `keys` are the client's, where the daemon asks for them; to be set before it listens.
    """

    def __init__(self, folder: Path, config: Path, *arguments: str) -> None:
        self._announced = folder / f"{unique('announced')}.json"
        super().__init__(
            folder, "serve", str(config), "--announce", str(self._announced), *arguments
        )
        self.heard = Heard()
        self.keys: CurveKeys | None = None
        self._subscriber: DecodeSubscriber | None = None

    @property
    def announced(self) -> dict[str, str]:
        """Its endpoints, once its sockets are bound."""
        wait_until(lambda: self._announced.exists() or not self.is_alive)
        if not self._announced.exists():
            raise HungError(f"serve ended with code {self.code()}: {self.err}")
        endpoints: dict[str, str] = json.loads(self._announced.read_text())
        return endpoints

    def connect(self) -> None:
        """Subscribe as soon as its sockets are bound."""
        endpoints = self.announced
        self.control: str = endpoints["control"]
        self.endpoint: str = endpoints["decode"]
        topics = ("decode", "heartbeat", "event", "shadow", "timing")
        self._subscriber = DecodeSubscriber(self.endpoint, topics, self.keys)

    def listen(self) -> None:
        """Take in what has been published."""
        if self._subscriber is None:
            self.connect()
            return
        kinds = {
            "decode": self.heard.decodes,
            "heartbeat": self.heard.heartbeats,
            "event": self.heard.events,
            "shadow": self.heard.shadows,
            "timing": self.heard.timings,
        }
        while (received := self._subscriber.receive(0.0)) is not None:
            kinds[received[0]].append(received[1])

    def until(
        self,
        condition: Callable[[Heard], T],
        each: Callable[[], object] = lambda: None,
        within_s: float = WITHIN_S,
    ) -> T:
        """Listen until what was heard meets the condition; the daemon must live meanwhile."""

        def listen() -> None:
            each()
            self.listen()
            if not self.is_alive:
                self.listen()
                raise HungError(f"serve ended with code {self.code()}: {self.err}")

        return wait_until(lambda: condition(self.heard), listen, within_s)

    def until_validity(
        self, validity: str, each: Callable[[], object] = lambda: None
    ) -> dict[str, Any]:
        """Listen until a decode from now on has this validity."""
        self.listen()
        n_before = len(self.heard.decodes)
        self.until(
            lambda heard: any(d["validity"] == validity for d in heard.decodes[n_before:]), each
        )
        return next(d for d in self.heard.decodes[n_before:] if d["validity"] == validity)

    def until_event(self, event: str, each: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Listen until this event has been published; the event."""
        self.until(lambda heard: any(e["event"] == event for e in heard.events), each)
        return next(e for e in self.heard.events if e["event"] == event)

    def until_settled(
        self, n_spikes: int, each: Callable[[], object] = lambda: None
    ) -> dict[str, Any]:
        """Ask until the fates of so many spikes are settled; the daemon's status."""
        found: dict[str, Any] = {}

        def is_settled() -> bool:
            found.update(self.ask("status").result)
            return bool(sum(found["fates"].values()) >= n_spikes)

        wait_until(is_settled, each)
        return found

    def ask(self, command: str) -> Reply:
        """Send a command; its reply."""
        return self.send(encode(Command(command=command)))

    def send(self, payload: bytes) -> Reply:
        """Send bytes to the control socket; the reply."""
        return decode_reply(request(self.control, payload, WITHIN_S, self.keys))

    def stand_still(self) -> None:
        """Stop the daemon; its guardian runs on."""
        os.kill(int(self.announced["pid"]), signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(int(self.announced["pid"]), signal.SIGCONT)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and listen to the end; the exit code."""
        self.signal(number)
        return self.finish()

    def finish(self) -> int:
        """Listen until it has ended; the exit code."""
        wait_until(lambda: not self.is_alive, self.listen)
        keep_on(0.2, self.listen)
        return self.code()

    def kill(self) -> None:
        """End it at once and stop listening."""
        super().kill()
        if self._subscriber is not None:
            self._subscriber.close()
