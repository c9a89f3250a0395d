"""`spikeloop serve`: from a config file to a running daemon, and its end in order."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from export.bundle import open_bundle
from export.shipped import bundle_path
from service.config import ServeConfig
from service.daemon.access import Doorkeeper, read_access
from service.daemon.compose import signers_of
from service.daemon.control import Control
from service.daemon.daemon import Daemon
from service.daemon.lifeline import Lifeline
from service.daemon.realtime import bound_heaps
from service.daemon.startup_control import StartupControl
from service.errors import cannot_write
from service.signals import ending_signals
from streams.clock import MonotonicClock
from streams.files import write_whole
from streams.wire.sockets import ControlServer, Publisher

_log = logging.getLogger("spikeloop")


def serve(
    config: ServeConfig,
    announce: Path | None = None,
    *,
    lifeline: Lifeline,
    hung: Mapping[str, str],
) -> None:
    """Run the daemon until SIGTERM, SIGINT, a closed terminal or the command `stop`.

    Args:
        config: what to run.
        announce: a file to write the endpoints to once they are bound (JSON).
        lifeline: tells the daemon's guardian how far it is.
        hung: backends that hung before, and where.

    Raises:
        BundleError, BackendUnavailable, StreamsError, ConfigError: it could not start.
        GuardError: it ended itself.
    """
    bound_heaps()
    for number in ending_signals():
        signal.signal(number, _interrupt)
    bundle = open_bundle(bundle_path(config.decoder.bundle), signers_of(config.decoder))
    keys, clients = read_access(config.output)
    door = Doorkeeper(clients, MonotonicClock())
    publisher = Publisher(config.output.decode, keys, clients=clients)
    try:
        server = ControlServer(config.output.control, keys, clients)
        lifeline.say(decode=publisher.endpoint, control=server.endpoint)
        if announce is not None:
            _announce(announce, publisher.endpoint, server.endpoint)
        told = {"decode": publisher.endpoint, "control": server.endpoint}
        _log.info("starting", extra={"detail": told | {"stream": _wanted(config)}})
        startup = StartupControl(server, publisher.connections, _beginning(config), lifeline, door)
        startup.start()
        try:
            daemon = Daemon(config, bundle, publisher, lifeline=lifeline, hung=hung, door=door)
        finally:
            waiting = startup.hand_over()
        _run(daemon, Control(daemon, server, daemon.fail, waiting))
    finally:
        publisher.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Until the daemon runs there is nothing to end in order."""
    for again in ending_signals():  # a second one must not cut the end short
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def _beginning(config: ServeConfig) -> str:
    return (
        f"it opens {config.decoder.bundle} on {config.decoder.backend}, then waits up to "
        f"{config.input.wait_s:g} s for an LSL stream of {_wanted(config)}; ask again, or end it "
        "with `spikeloop stop`"
    )


def _wanted(config: ServeConfig) -> str:
    wanted = config.input.model_dump(include={"type", "name", "source_id"})
    return ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value)


def _run(daemon: Daemon, control: Control) -> None:
    def on_signal(number: int, frame: FrameType | None) -> None:
        daemon.stop()

    for one in ending_signals():
        signal.signal(one, on_signal)
    control.start()
    try:
        daemon.run()
    finally:
        control.stop()


def _announce(path: Path, decode: str, control: str) -> None:
    text = json.dumps({"decode": decode, "control": control, "pid": os.getpid()})
    try:
        write_whole(path, text)
    except OSError as err:
        raise cannot_write(path, err) from err
