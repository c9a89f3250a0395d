"""Answers to commands while the daemon starts: its stream may be long in coming."""

from __future__ import annotations

import logging
import threading

from service.daemon.access import Doorkeeper
from service.daemon.lifeline import Lifeline
from service.guard import Guard
from streams.clock import MonotonicClock
from streams.errors import WireError
from streams.wire.connections import Connections
from streams.wire.schema import Reply, decode_command, encode
from streams.wire.sockets import ControlServer

POLL_S = 0.1
_log = logging.getLogger("spikeloop")
PATIENCE_S = 1.5
"""A command waits so long for the daemon; clients give up a little later."""


class StartupControl(threading.Thread):
    """Ends the start at the command `stop`; tells other commands why they must wait.

    Args:
        server: the bound socket; this thread owns it until `hand_over`.
        subscribed: the publisher's connections; likewise.
        doing: what the daemon does meanwhile, for whoever asks.
        lifeline: the daemon's.
        door: who may give which command.
    """

    def __init__(
        self,
        server: ControlServer,
        subscribed: Connections,
        doing: str,
        lifeline: Lifeline,
        door: Doorkeeper,
    ) -> None:
        super().__init__(name="startup control", daemon=True)
        self._server, self._doing, self._lifeline, self._door = server, doing, lifeline, door
        self._watched = (server.connections, subscribed)
        self._clock = MonotonicClock()
        self._over = threading.Event()
        self._unanswered: list[bytes] | None = None
        self._told = ""

    def run(self) -> None:
        """Answer until the daemon can do so.

        What nobody expected is told, and the next command answered: nobody else would.
        """
        while not self._over.is_set():
            with Guard(Exception, self._tell):
                self._answer_until_over()

    def _tell(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        if told != self._told:
            self._told = told
            warning = f"a command failed while the daemon starts: {told}"
            _log.warning("control_failed", extra={"detail": {"warning": warning}})
        self._over.wait(POLL_S)  # what fails at once again must not take the start's processor

    def _answer_until_over(self) -> None:
        while not self._over.is_set():
            self._lifeline.alive(self._clock.now())
            self._door.look()
            for connections in self._watched:
                self._door.ended(connections.look(self._clock.now()))
            frames = self._server.receive(POLL_S)
            if frames is None:
                continue
            if _is_stop(frames):
                self._end_the_start()
            elif self._daemon_is_there():
                self._unanswered = frames
            else:
                error = f"the daemon is starting: {self._doing}"
                reply = Reply(ok=False, error=error, result={"starting": True})
                self._server.reply(encode(reply))

    def _daemon_is_there(self) -> bool:
        """Wait for the daemon, but not where another command waits: it may be `stop`."""
        t_end_s = self._clock.now() + PATIENCE_S
        while self._clock.now() < t_end_s and not self._server.has_waiting:
            if self._over.wait(POLL_S / 2):
                return True
        return self._over.is_set()

    def _end_the_start(self) -> None:
        if refused := self._door.refuse("stop", self._server.client):
            self._server.reply(encode(Reply(ok=False, error=refused)))
            return
        self._server.reply(encode(Reply(ok=True, result={"stopping": True})))
        self._lifeline.ask_end()

    def hand_over(self) -> list[bytes] | None:
        """End the thread; return the command that still waits for its answer, if any."""
        self._over.set()
        self.join()
        return self._unanswered


def _is_stop(frames: list[bytes]) -> bool:
    try:
        return decode_command(frames[0]).command == "stop"
    except WireError:
        return False
