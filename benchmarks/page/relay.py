"""Passes a daemon's messages on, and gives its decodes another validity where it is asked to.

For pictures of faults that need another machine, a worn-out memory or a slow network.
"""

from __future__ import annotations

import json
from threading import Event, Thread
from typing import Any

import zmq

from service.loop.validity import VALIDITIES

POLL_MS = 100


class Relay(Thread):
    """Subscribes to a daemon and publishes what it hears.

    Args:
        endpoint: the daemon's decodes.

    Attributes:
        endpoint: where they leave here.
        reason: what decodes are said to be not `ok` by; "" to pass them on as they are.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(name="relay", daemon=True)
        self.reason, self._ending = "", Event()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._heard, self._said = context.socket(zmq.SUB), context.socket(zmq.PUB)
        self._heard.connect(endpoint)
        self._heard.subscribe(b"")
        self._said.bind("tcp://127.0.0.1:*")
        self.endpoint = self._said.getsockopt_string(zmq.LAST_ENDPOINT)

    def run(self) -> None:
        """Pass on until told to end."""
        while not self._ending.is_set():
            if self._heard.poll(POLL_MS):
                topic, message = self._heard.recv_multipart()
                is_changed = self.reason and topic == b"decode"
                self._said.send_multipart(
                    [topic, self._changed(message) if is_changed else message]
                )
        self._heard.close(0)
        self._said.close(0)

    def _changed(self, message: bytes) -> bytes:
        decode: dict[str, Any] = json.loads(message)
        value = {name: [0.0] * len(raw or ()) for name, raw in decode["value_raw"].items()}
        validity = VALIDITIES[self.reason]
        told = {"validity": validity, "reason": self.reason, "value": value}
        return json.dumps(decode | told).encode()

    def end(self) -> None:
        """End the thread."""
        self._ending.set()
        self.join()
