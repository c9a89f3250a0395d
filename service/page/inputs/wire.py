"""The daemon's messages, with the time at which each was received."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from streams.clock import Clock
from streams.errors import StreamsError, WireError
from streams.wire.client import DaemonClient
from streams.wire.sockets import DecodeSubscriber

TOPICS = ("decode", "shadow", "heartbeat", "event", "timing")
POLL_S, ASK_AGAIN_S = 0.2, 1.0
KEPT_MESSAGES = 50_000


class Heard(NamedTuple):
    """One message of the daemon, and when it was received (seconds on our clock)."""

    t_s: float
    topic: str
    message: dict[str, Any]


class WireReader:
    """Receives in a thread of its own, so that the time of receipt is right however busy we are.

    Args:
        subscribe: opens the subscription; raises while no daemon answers.
        clock: ours.

    Attributes:
        trouble: why nothing is received; "" if all is well.
    """

    def __init__(self, subscribe: Callable[[], DecodeSubscriber], clock: Clock) -> None:
        self._subscribe, self._clock, self.trouble = subscribe, clock, ""
        self._heard: deque[Heard] = deque(maxlen=KEPT_MESSAGES)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    def take(self) -> list[Heard]:
        """Return what came since the last call, oldest first."""
        taken = []
        while self._heard:
            taken.append(self._heard.popleft())
        return taken

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        subscriber = self._opened()
        while subscriber is not None and not self._stopping.is_set():
            try:
                received = subscriber.receive(POLL_S)
            except WireError as err:  # a message that another version wrote
                self.trouble = str(err)
                continue
            if received is not None:
                self._heard.append(Heard(self._clock.now(), *received))
        if subscriber is not None:
            subscriber.close()

    def _opened(self) -> DecodeSubscriber | None:
        while not self._stopping.is_set():
            try:
                subscriber = self._subscribe()
            except StreamsError as err:
                self.trouble = str(err)
                self._stopping.wait(ASK_AGAIN_S)
            else:
                self.trouble = ""
                return subscriber
        return None


class StatusReader:
    """Asks the daemon's `status` every few seconds, in a thread of its own.

    Attributes:
        status: the newest answer; empty before the first, and once none comes any more.
    """

    EVERY_S = 2.0

    def __init__(self, client: DaemonClient) -> None:
        self._client, self.status = client, dict[str, Any]()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; at most one question is still answered."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.status = self._client.ask("status")
            except StreamsError:
                self.status = {}
            self._stopping.wait(self.EVERY_S)
