"""Plays the recorded stream to a client program, and holds what it prints against the answers."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import zmq

from tests.conformance.stream import frames_at, read_stream

STALE_S = 0.5
WITHIN_S = 10.0
"""Ends a run that hangs; it measures nothing."""
TOPICS = (b"decode", b"heartbeat", b"event")


class ClientFailure(AssertionError):
    """A client did not answer as it must."""


class Listener:
    """A client program that listens to a publisher of ours."""

    def __init__(self, process: subprocess.Popen[str], socket: zmq.Socket[bytes]) -> None:
        self._socket, self.lines = socket, queue.SimpleQueue[str]()
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()
        self._wait_for_subscriptions()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self.lines.put(line)
        self.lines.put("")

    def _wait_for_subscriptions(self) -> None:
        asked: set[bytes] = set()
        while not all(any(topic.startswith(one) for one in asked) for topic in TOPICS):
            if not self._socket.poll(int(WITHIN_S * 1e3)):
                raise ClientFailure(f"it did not subscribe to {TOPICS}, but to {asked}")
            message = self._socket.recv()
            if message[:1] == b"\x01":
                asked.add(message[1:])

    def close(self) -> None:
        """Wait until all is read that the program printed; it has ended."""
        self._reader.join()

    def send(self, step: dict[str, Any]) -> None:
        self._socket.send_multipart(frames_at(step, time.monotonic()))

    def answer(self) -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=WITHIN_S)
        except queue.Empty:
            raise ClientFailure("it said nothing") from None
        if not line:
            raise ClientFailure("it ended")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def listening(command: Sequence[str], folder: Path) -> Iterator[Listener]:
    """Start a client program against a publisher; it ends with the block."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
    socket.bind("tcp://127.0.0.1:*")
    arguments = [*command, socket.getsockopt_string(zmq.LAST_ENDPOINT), str(STALE_S)]
    process = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, text=True)
    with process:
        client = Listener(process, socket)
        try:
            yield client
        finally:
            process.kill()
            client.close()
            socket.close(0)


def play(command: Sequence[str], folder: Path) -> int:
    """Play the stream to a program; the number of answers that were held against it.

    Raises:
        ClientFailure: naming the step.
    """
    n_held, before = 0, "the start"
    with listening(command, folder) as client:
        _hold({"usable": False, "why": "none", "value": {"velocity": [0.0, 0.0]}}, client, before)
        t_sent = time.monotonic()
        for step in read_stream():
            if "frames" in step:
                t_sent = _send(step, client)
            if "answer" in step:
                name = f"{step['name']!r}, after {before!r}"
                _hold(step["answer"], client, name)
                waited_s = time.monotonic() - t_sent
                if waited_s < step.get("wait_s", 0.0):
                    raise ClientFailure(f"{name}: it spoke after {waited_s:.3f} s already")
                n_held += 1
            before = step["name"]
    return n_held


def _send(step: dict[str, Any], client: Listener) -> float:
    """Send a message, again and again where the step says so; when it was sent last."""
    t_sent = time.monotonic()
    t_end = t_sent + step.get("for_s", 0.0)
    client.send(step)
    while t_sent < t_end:
        time.sleep(step["every_s"])
        t_sent = time.monotonic()
        client.send(step)
    return t_sent


def _hold(wanted: dict[str, Any], client: Listener, name: str) -> None:
    try:
        found = client.answer()
    except ClientFailure as err:
        raise ClientFailure(f"{name}: {err}; wanted {wanted}") from None
    differing = {key: found.get(key) for key, v in wanted.items() if not _is(found.get(key), v)}
    if differing:
        raise ClientFailure(f"{name}: it says {differing}; wanted {wanted}")


def _is(found: Any, wanted: Any) -> bool:
    """Return True if both are equal; some JSON parsers are off in a number's last bit."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return found.keys() == wanted.keys() and all(_is(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(_is, found, wanted))
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return math.isclose(found, wanted, rel_tol=1e-12)
    return bool(found == wanted)
