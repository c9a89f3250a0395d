"""The control thread: answers commands, and writes the log that the beat must not write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from service.loop.daemon import Daemon
from streams.sockets import ControlServer
from streams.wire import Command, Reply, WireError, decode_command, encode

POLL_S = 0.1
Handler = Callable[[Daemon, dict[str, Any]], dict[str, Any]]
_log = logging.getLogger("spikeloop")


def _status(daemon: Daemon, _: dict[str, Any]) -> dict[str, Any]:
    status: dict[str, Any] = msgspec.to_builtins(daemon.heartbeat())
    return status | {
        "paused": daemon.beat.paused,
        "decode_endpoint": daemon.decode_endpoint,
        "source": str(daemon.source.inlet.description),
        "units_known": int(daemon.beat.decoder.known.sum()),
        "units_seen": len(daemon.source.keys),
        "refused_backends": {one.name: one.reason for one in daemon.opened.tried},
    }


def _pause(daemon: Daemon, _: dict[str, Any]) -> dict[str, Any]:
    daemon.beat.paused = True
    daemon.report("paused", {})
    return {"paused": True}


def _resume(daemon: Daemon, _: dict[str, Any]) -> dict[str, Any]:
    daemon.beat.paused = False
    daemon.report("resumed", {})
    return {"paused": False}


def _stop(daemon: Daemon, _: dict[str, Any]) -> dict[str, Any]:
    daemon.stop()
    return {"stopping": True}


HANDLERS: dict[str, Handler] = {
    "status": _status,
    "pause": _pause,
    "resume": _resume,
    "stop": _stop,
}


def answer(daemon: Daemon, payload: bytes) -> Reply:
    """Carry out one command."""
    try:
        command: Command = decode_command(payload)
    except WireError as err:
        return Reply(ok=False, error=str(err))
    handler = HANDLERS.get(command.command)
    if handler is None:
        return Reply(
            ok=False,
            error=f"no command {command.command!r}; there are: {', '.join(sorted(HANDLERS))}",
        )
    if command.arguments:
        return Reply(ok=False, error=f"{command.command!r} takes no arguments")
    return Reply(ok=True, result=handler(daemon, command.arguments))


class Control(threading.Thread):
    """Serves the control socket and logs what happened.

    Args:
        daemon: whom to steer.
        server: the bound socket; this thread owns it from its start on.
        failed: called once with the error that ended the thread.
    """

    def __init__(
        self, daemon: Daemon, server: ControlServer, failed: Callable[[Exception], None]
    ) -> None:
        super().__init__(name="control", daemon=True)
        self._daemon, self._server, self._failed = daemon, server, failed
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        self.join(timeout=5.0)

    def run(self) -> None:
        """Answer until told to stop."""
        try:
            while not self._stopping.is_set():
                payload = self._server.receive(POLL_S)
                if payload is not None:
                    self._server.reply(encode(answer(self._daemon, payload)))
                self._write_log()
            self._write_log()
        except Exception as err:  # noqa: BLE001 - the thread's one guard: it ends the daemon
            self._failed(err)
        finally:
            self._server.close()

    def _write_log(self) -> None:
        while self._daemon.notes:
            note = self._daemon.notes.popleft()
            bad = "warning" in note.detail or note.event in ("failed", "source_lost")
            level = logging.WARNING if bad else logging.INFO
            _log.log(level, note.event, extra={"detail": note.detail})
