"""A running daemon's client: sends commands and listens to what the daemon publishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streams.errors import StreamsError
from streams.wire.curve_keys import CurveKeys, read_curve_keys
from streams.wire.schema import Command, Reply, decode_reply, encode
from streams.wire.sockets import DecodeSubscriber, request

# Compared with, never bound.
ANY_ADDRESS = ("0.0.0.0", "::")  # nosec B104


class DeclinedError(StreamsError):
    """The daemon declined a command."""


class StartingError(DeclinedError):
    """The daemon is starting, and will answer later."""


class DaemonClient:
    """Asks a daemon.

    Args:
        control: its `[output] control`.
        keys: the client's CURVE keys, where the daemon asks for them.
        timeout_s: how long to wait for an answer.

    Raises:
        CurveKeysError: the file holds no keys.
    """

    def __init__(self, control: str, keys: Path | None = None, timeout_s: float = 2.0) -> None:
        self._control, self._timeout_s = control, timeout_s
        self._keys: CurveKeys | None = read_curve_keys(keys) if keys else None

    def reply(self, command: str, attached: bytes | None = None, **arguments: Any) -> Reply:
        """Send a command, perhaps with bytes; its reply.

        Raises:
            UnreachableError: no daemon answered.
        """
        payload = encode(Command(command=command, arguments=arguments))
        answer = request(self._control, payload, self._timeout_s, self._keys, attached)
        return decode_reply(answer)

    def ask(self, command: str, attached: bytes | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a command; its result.

        Raises:
            DeclinedError: the daemon declined it; `StartingError` where it will answer later.
            UnreachableError: no daemon answered.
        """
        reply = self.reply(command, attached, **arguments)
        if not reply.ok:
            kind = StartingError if reply.result.get("starting") else DeclinedError
            raise kind(f"the daemon declined `{command}`: {reply.error}")
        return reply.result

    def subscribe(self, topics: Sequence[str]) -> DecodeSubscriber:
        """Listen to what the daemon publishes.

        Raises:
            UnreachableError: no daemon answered.
        """
        endpoint = reachable(self.ask("status")["decode_endpoint"], self._control)
        return DecodeSubscriber(endpoint, topics, self._keys)


def reachable(endpoint: str, control: str) -> str:
    """Replace an address that means all by the one that answered."""
    # The daemon cannot know by which of its addresses it is reached.
    bound, answered = urlsplit(endpoint), urlsplit(control)
    if bound.hostname not in ANY_ADDRESS:
        return endpoint
    return f"tcp://{answered.netloc.rpartition(':')[0]}:{bound.port}"
