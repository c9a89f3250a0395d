"""The running daemon, over the wire: what it is asked, and what it publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from calibration.wizard.errors import UNREACHABLE, WizardError
from streams.errors import UnreachableError
from streams.wire.curve_keys import CurveKeys, read_curve_keys
from streams.wire.schema import Command, decode_reply, encode
from streams.wire.sockets import DecodeSubscriber, request

ANSWERS_WITHIN_S = 5.0
EVERYWHERE = ("0.0.0.0", "::")


class Daemon:
    """Asks a daemon.

    Args:
        control: its `[output] control`.
        keys: file of the client's keys; "" for none.
    """

    def __init__(self, control: str, keys: str = "") -> None:
        self.control = control
        self._keys: CurveKeys | None = read_curve_keys(Path(keys)) if keys else None

    def ask(self, command: str, attached: bytes | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a command, perhaps with bytes; its result.

        Raises:
            WizardError: nobody answered, or the daemon declined.
        """
        payload = encode(Command(command=command, arguments=arguments))
        try:
            held = request(
                self.control,
                payload,
                timeout_s=ANSWERS_WITHIN_S,
                curve_keys=self._keys,
                attached=attached,
            )
        except UnreachableError as err:
            raise WizardError(str(err), UNREACHABLE) from err
        reply = decode_reply(held)
        if not reply.ok:
            raise WizardError(f"the daemon declined `{command}`: {reply.error}")
        return reply.result

    def mark(self, text: str) -> None:
        """Note in the daemon's record which block is on; nothing happens without a daemon."""
        try:
            self.ask("mark", text=text)
        except WizardError as err:
            if err.code != UNREACHABLE:
                raise

    def subscribe(self, topics: tuple[str, ...]) -> DecodeSubscriber:
        """Listen to what it publishes.

        Raises:
            WizardError: nobody answered.
        """
        endpoint = reachable(self.ask("status")["decode_endpoint"], self.control)
        return DecodeSubscriber(endpoint, topics, self._keys)


def reachable(endpoint: str, control: str) -> str:
    """Where decodes come from: of a daemon that listens on every address, the one that answered."""
    bound, answered = urlsplit(endpoint), urlsplit(control)
    if bound.hostname not in EVERYWHERE:
        return endpoint
    return f"tcp://{answered.netloc.rpartition(':')[0]}:{bound.port}"
