"""Commands that other threads give the loop: one queue, emptied at a beat's boundary."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from service.errors import ServiceError
from service.loop.shaping import Shaping
from service.loop.slots import Change, DecoderSlot

if TYPE_CHECKING:
    from service.loop.decode_loop import DecodeLoop

CARRIED_OUT_WITHIN_S = 10.0


class RefusedError(ServiceError):
    """A command is refused; the decoder in service goes on as before."""


@dataclass(slots=True)
class LoopCommand:
    """A change that the loop is to make.

    Attributes:
        change: the change.
        slot: the decoder that joins or takes over.
        shaping: for `shape`.
        lead_s: for `shape`.
        done: set once it is carried out or refused.
        error: the reason why it was refused; "" if it was not.
    """

    change: Change | Literal["pause", "resume", "shape"]
    slot: DecoderSlot | None = None
    shaping: Shaping | None = None
    lead_s: float | None = None
    done: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    claim: threading.Lock = field(default_factory=threading.Lock)
    """Held by the loop while it carries it out, and for ever by whoever gave it up."""


class CommandQueue:
    """Holds commands until the loop carries them out; any thread may put, the loop alone takes."""

    def __init__(self) -> None:
        self._waiting: deque[LoopCommand] = deque()
        self._is_closed = False

    def put(self, command: LoopCommand) -> None:
        """Queue a command; returns at once."""
        self._waiting.append(command)
        if self._is_closed:
            self.close()

    def ask(self, command: LoopCommand, within_s: float = CARRIED_OUT_WITHIN_S) -> None:
        """Queue a command and wait until it is carried out.

        Raises:
            RefusedError: it cannot be, or was not in time.
        """
        self.put(command)
        # Given up, it must not be carried out later: whoever asked has been told that it was not.
        if not command.done.wait(within_s) and (
            command.claim.acquire(blocking=False) or not command.done.wait(within_s)
        ):
            raise RefusedError(f"the loop did not {command.change} within {within_s:g} s")
        if command.error:
            raise RefusedError(command.error)

    def close(self) -> None:
        """Refuse waiting commands and later ones: the loop has ended."""
        self._is_closed = True
        with contextlib.suppress(IndexError):  # two threads may close at once
            while True:
                command = self._waiting.popleft()
                command.error = "the daemon is stopping"
                command.done.set()

    def carry_out(self, attempt: Callable[[LoopCommand], str | None]) -> None:
        """Try each waiting command once; one that cannot be carried out yet waits on.

        Args:
            attempt: returns the reason why a command is refused, "" once it is carried out, and
                None if it must wait.
        """
        for _ in range(len(self._waiting)):
            command = self._waiting.popleft()
            if not command.claim.acquire(blocking=False):
                continue
            error = attempt(command)
            if error is None:
                self._waiting.append(command)
                command.claim.release()
                continue
            command.error = error
            command.done.set()


def carry_out(loop: DecodeLoop, command: LoopCommand) -> str | None:
    """Make a command's change at a beat's boundary, and let the journal know.

    Returns:
        "" once it is made; None if it must wait; otherwise the reason why it is refused.
    """
    shaping, detail = command.shaping, dict[str, Any]()
    if command.change == "pause" or command.change == "resume":
        loop.paused = command.change == "pause"
    elif command.change == "shape":
        if shaping is not None:
            loop.slots.shape(shaping)
            detail = asdict(shaping)
        loop.lead_s = loop.lead_s if command.lead_s is None else command.lead_s
        detail["lead_s"] = loop.lead_s
    else:
        refused = loop.slots.carry_out(command.change, command.slot)
        if refused != "":
            return refused
        detail["decoder"] = loop.decoder.number
    loop.journal.commanded(command.change, detail)
    return ""
