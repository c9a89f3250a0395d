"""The control thread: answers commands, and writes the log that the loop must not write."""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from export.bundle import GRAPH
from service.config import ShapingConfig, parse_config
from service.daemon.compose import checked_lead, shaping_of
from service.daemon.daemon import Daemon
from service.deploy.lease import KEEP_AT_MOST_S
from service.deploy.swap import Deployment
from service.errors import ServiceError
from service.guard import Guard
from service.loop.commands import LoopCommand, RefusedError
from service.loop.slots import Change
from service.telemetry.flight_recorder import write_dump
from streams.errors import WireError
from streams.wire.clients import ANYBODY, Client
from streams.wire.schema import Command, Reply, decode_command, encode
from streams.wire.sockets import ControlServer

POLL_S = 0.1
HEALTH_EVERY_S = 1.0
MARK_AT_MOST, NAMED_AT_MOST = 4000, 100
SHADOW_AT_MOST_S = 3600.0
Arguments = dict[str, Any]
_log = logging.getLogger("spikeloop")


def _status(daemon: Daemon, _: Arguments) -> Arguments:
    status: Arguments = msgspec.to_builtins(daemon.heartbeat())
    loop, failover = daemon.loop, daemon.deployer.failover
    shadow, standby = loop.slots.shadow, loop.slots.standby
    return status | {
        "paused": loop.paused,
        "decode_endpoint": daemon.decode_endpoint,
        "source": str(daemon.source.inlet.description),
        "units_known": int(loop.decoder.known.sum()),
        "units_seen": len(daemon.source.keys),
        "library": loop.decoder.backend.library,
        "backend_choice": failover.ranking.as_dict() if failover.ranking else {},
        "refused_backends": dict(failover.refused),
        "spare_backend": failover.spare,
        "health": daemon.units.report(),
        "agreement": daemon.agreement.units.report(),
        "recording": daemon.recorder.status if daemon.recorder else {},
        "memory_check": daemon.deployer.memory.report(),
        "shaping": msgspec.to_builtins(loop.slots.active.shaper.shaping),
        "lead_s": loop.lead_s,
        "graph": loop.decoder.manifest.files[GRAPH].sha256,
        "shadow": shadow.decoder.manifest.id if shadow else "",
        "standby": standby.decoder.manifest.id if standby else "",
    }


def _pause(daemon: Daemon, _: Arguments) -> Arguments:
    daemon.loop.commands.ask(LoopCommand("pause"))
    daemon.report("paused", {})
    return {"paused": True}


def _resume(daemon: Daemon, _: Arguments) -> Arguments:
    daemon.loop.commands.ask(LoopCommand("resume"))
    daemon.report("resumed", {})
    return {"paused": False}


def _stop(daemon: Daemon, _: Arguments) -> Arguments:
    daemon.stop()
    return {"stopping": True}


def _mark(daemon: Daemon, a: Arguments) -> Arguments:
    if len(a["text"]) > MARK_AT_MOST:
        raise RefusedError(f"a mark has at most {MARK_AT_MOST} letters")
    daemon.report("mark", {"text": a["text"]})
    return {}


def _swap(daemon: Daemon, a: Arguments) -> Arguments:
    shadow_s = a.get("shadow_s", 0.0)
    if not 0.0 <= shadow_s <= SHADOW_AT_MOST_S:
        raise RefusedError(f"shadow_s is {shadow_s}; it lies between 0 and {SHADOW_AT_MOST_S:g} s")
    hold, tables = a.get("hold", False), a.get("tables", False)
    if tables and (hold or shadow_s):
        raise RefusedError("tables alone go into service at once: leave shadow_s and hold out")
    keep_s = a.get("keep_s", 0.0)
    if not 0.0 <= keep_s <= KEEP_AT_MOST_S or (keep_s and not tables):
        raise RefusedError(
            f"keep_s is {keep_s}; it lies between 0 and {KEEP_AT_MOST_S:g} s, and goes with tables"
        )
    deployment = Deployment(Path(a["bundle"]), shadow_s, hold, tables, keep_s)
    daemon.deployer.start(deployment)
    return deployment.as_dict()


def _send_begin(daemon: Daemon, a: Arguments) -> Arguments:
    return {"transfer": daemon.transfers.begin(a["files"])}


def _send_chunk(daemon: Daemon, a: Arguments) -> Arguments:
    held = a["held"]
    n = daemon.transfers.chunk(a["transfer"], a["file"], a["offset"], a["sha256"], held)
    return {"arrived": n}


def _send_end(daemon: Daemon, a: Arguments) -> Arguments:
    folder = daemon.transfers.finish(a["transfer"])
    return _swap(daemon, {"bundle": str(folder), **{k: a[k] for k in a if k != "transfer"}})


def _deployment(daemon: Daemon, _: Arguments) -> Arguments:
    latest = daemon.deployer.latest
    return {"over": True, "stages": [], "refused": ""} if latest is None else latest.as_dict()


def _keep(daemon: Daemon, a: Arguments) -> Arguments:
    lease = daemon.deployer.lease
    return {"kept": lease.release() if a.get("for_good", False) else lease.renew()}


def _change_slots(daemon: Daemon, change: Change) -> Arguments:
    daemon.loop.commands.ask(LoopCommand(change))
    return {} if change == "dismiss" else {"checksum": daemon.loop.decoder.manifest.id}


def _shape(daemon: Daemon, a: Arguments) -> Arguments:
    loop = daemon.loop
    lead_s = loop.lead_s
    if "lead_s" in a:
        lead_s = a.pop("lead_s")
        for slot in loop.slots.all:  # the others may take over at any beat
            checked_lead(lead_s, slot.decoder.manifest)
    settings = asdict(loop.slots.active.shaper.shaping)
    now = {key: value for key, value in settings.items() if value is not None}
    shaping = shaping_of(parse_config(now | a, ShapingConfig, "shape"))
    if complaint := shaping.complaint(loop.slots.active.shaper.outputs):
        raise RefusedError(f"shape: {complaint}")
    # One command for both: no decode has the new lead time and the old shaping.
    loop.commands.ask(LoopCommand("shape", shaping=shaping, lead_s=lead_s))
    changed = asdict(shaping) | {"lead_s": lead_s}
    daemon.report("shaped", changed)
    return changed


@dataclass(frozen=True, slots=True)
class Handler:
    """Carries out one command; `required` and `optional` say what arguments it takes."""

    run: Callable[[Daemon, Arguments], Arguments]
    required: tuple[tuple[str, type], ...] = ()
    optional: tuple[tuple[str, type], ...] = ()

    def complaint(self, arguments: Arguments) -> str:
        """Return the arguments' fault; "" if there is none."""
        types = dict((*self.required, *self.optional))
        for name, value in arguments.items():
            if name not in types:
                return f"no argument {name!r}; there are: {', '.join(types) or 'none'}"
            wanted = (int, float) if types[name] is float else types[name]
            if not isinstance(value, wanted) or (isinstance(value, bool) and types[name] is float):
                return f"argument {name!r} must be of type {types[name].__name__}"
        lacking = [name for name, _ in self.required if name not in arguments]
        return f"argument {lacking[0]!r} is missing" if lacking else ""


SETTINGS = (
    ("gain", float), ("smoothing", float), ("bias", list), ("speed_power", float),
    ("speed_ref", float), ("max_speed", float), ("bounds", dict), ("lead_s", float),
)  # fmt: skip
DEPLOYING = (("shadow_s", float), ("hold", bool), ("tables", bool), ("keep_s", float))
HANDLERS: dict[str, Handler] = {
    "status": Handler(_status),
    "pause": Handler(_pause),
    "resume": Handler(_resume),
    "stop": Handler(_stop),
    "mark": Handler(_mark, (("text", str),)),
    "shape": Handler(_shape, optional=SETTINGS),
    "send_begin": Handler(_send_begin, (("files", dict),)),
    "send_chunk": Handler(
        _send_chunk,
        (("transfer", str), ("file", str), ("offset", int), ("sha256", str), ("held", bytes)),
    ),
    "send_end": Handler(_send_end, (("transfer", str),), DEPLOYING),
    "swap": Handler(_swap, (("bundle", str),), DEPLOYING),
    "deployment": Handler(_deployment),
    "keep": Handler(_keep, optional=(("for_good", bool),)),
    "promote": Handler(lambda daemon, _: _change_slots(daemon, "promote")),
    "dismiss": Handler(lambda daemon, _: _change_slots(daemon, "dismiss")),
    "rollback": Handler(lambda daemon, _: _change_slots(daemon, "rollback")),
}


def answer(daemon: Daemon, frames: list[bytes], client: Client | None = ANYBODY) -> Reply:
    """Carry out one command.

    Args:
        daemon: that it is for.
        frames: its JSON, and the bytes attached to it if there are any.
        client: who sent it; None for one whose key is not listed any more.
    """
    name = ""
    try:
        command: Command = decode_command(frames[0])
        name = command.command
        command.arguments.pop("held", None)  # bytes come in a frame of their own, never in JSON
        if len(frames) > 1:
            command.arguments["held"] = frames[1]
        handler = HANDLERS.get(command.command)
        if handler is None:
            near = difflib.get_close_matches(command.command, HANDLERS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return Reply(
                ok=False,
                error=f"no command {command.command!r}; {hint}there are: "
                f"{', '.join(sorted(HANDLERS))}",
            )
        if refused := daemon.door.refuse(name, client):
            return Reply(ok=False, error=refused)
        complaint = handler.complaint(command.arguments)
        if complaint:
            return Reply(ok=False, error=f"{command.command}: {complaint}")
        return Reply(ok=True, result=handler.run(daemon, command.arguments))
    except (WireError, ServiceError) as err:
        return Reply(ok=False, error=str(err))
    except Exception as err:  # noqa: BLE001 - nothing that a client sends may end the daemon
        error = f"{name}: it failed: {type(err).__name__}: {err}"
        daemon.report("command_failed", {"command": name[:NAMED_AT_MOST], "warning": error})
        return Reply(ok=False, error=error)


class Control(threading.Thread):
    """Serves the control socket and logs what happened.

    Args:
        daemon: that it controls.
        server: the bound socket; this thread owns it from its start on.
        failed: called once with the error that ended the thread.
        waiting: a command that came before and waits for its answer.
    """

    def __init__(
        self,
        daemon: Daemon,
        server: ControlServer,
        failed: Callable[[Exception], None],
        waiting: list[bytes] | None = None,
    ) -> None:
        super().__init__(name="control", daemon=True)
        self._daemon, self._server, self._failed = daemon, server, failed
        self._waiting = waiting
        self._stopping = threading.Event()
        self._t_sample_s = 0.0

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        self.join(timeout=5.0)

    def run(self) -> None:
        """Answer until told to stop."""
        with closing(self._server), Guard(Exception, self._failed):  # it ends the daemon
            while not self._stopping.is_set():
                frames = self._waiting or self._server.receive(POLL_S)
                self._waiting = None
                if frames is not None:
                    reply = answer(self._daemon, frames, self._server.client)
                    self._server.reply(encode(reply))
                self._watch_the_door()
                self._write_log()
                self._watch_units()
                self._dump_flights()
            self._write_log()

    def _watch_the_door(self) -> None:
        door = self._daemon.door
        door.look()
        door.ended(self._server.connections.look(self._daemon.now()))
        door.ended(self._daemon.look_at_subscribers())
        for event, detail in door.take_events():
            self._daemon.report(event, detail)

    def _watch_units(self) -> None:
        daemon = self._daemon
        if daemon.now() >= self._t_sample_s:
            self._t_sample_s = daemon.now() + HEALTH_EVERY_S
            daemon.look_at_units()

    def _dump_flights(self) -> None:
        folder = self._daemon.config.log.flights
        while self._daemon.telemetry.flight.dumps:
            missed = self._daemon.telemetry.flight.dumps.popleft()
            if not folder:
                continue
            try:
                told = {"file": str(write_dump(missed, Path(folder), self._daemon.run_id))}
            except OSError as err:  # a full disk must not end the loop
                told = {"warning": f"the flight was not written: {err}"}
            self._daemon.report("flight", {"missed_beat": missed.beat} | told)

    def _write_log(self) -> None:
        while self._daemon.notes:
            event, detail = self._daemon.notes.popleft()
            bad = "warning" in detail or event in ("failed", "source_lost")
            _log.log(logging.WARNING if bad else logging.INFO, event, extra={"detail": detail})
