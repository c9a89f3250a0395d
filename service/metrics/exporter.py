"""`spikeloop metrics`: listen to a daemon, and answer Prometheus."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from service.errors import ConfigError
from streams.clock import MonotonicClock
from streams.errors import AddressError, StreamsError, WireError
from streams.wire.client import DaemonClient
from streams.wire.curve_keys import read_curve_keys
from streams.wire.sockets import DecodeSubscriber

CLOCK_EVERY_S, CLOCK_TRIES = 60.0, 5
POLL_S = 0.2


class DaemonTime:
    """The daemon's clock, by ours: measured once a minute by a thread of its own.

    Args:
        client: asks the daemon.
    """

    def __init__(self, client: DaemonClient) -> None:
        self._client, self._clock, self._offset_s = client, MonotonicClock(), 0.0
        self._ending = threading.Event()

    def now(self) -> float:
        """Return the time there; as here until it was measured."""
        return self._clock.now() + self._offset_s

    def follow(self) -> None:
        """Measure from now on."""
        threading.Thread(target=self._follow, name="daemon's clock", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end."""
        self._ending.set()

    def _follow(self) -> None:
        while not self._ending.wait(CLOCK_EVERY_S if self._measure() else 1.0):
            pass

    def _measure(self) -> bool:
        """Ask a few times and keep the quickest answer; False where none came."""
        found: list[tuple[float, float]] = []
        for _ in range(CLOCK_TRIES):
            t_asked_s = self._clock.now()
            try:
                t_sent_s = float(self._client.ask("status")["t_sent"])
            except (StreamsError, KeyError):
                return False
            t_answered_s = self._clock.now()
            half_s = (t_answered_s - t_asked_s) / 2
            found.append((half_s, t_sent_s - t_asked_s - half_s))
        off_s, offset_s = min(found)
        # On one machine there is one clock.
        self._offset_s = 0.0 if abs(offset_s) <= off_s else offset_s
        return True


def metrics(
    decode: str,
    control: str,
    keys: Path | None,
    host: str,
    port: int,
    is_stopped: Callable[[], bool],
) -> None:
    """Serve the metrics until told to stop.

    Args:
        decode: the daemon's decodes.
        control: its control socket, asked for its clock.
        keys: file of the client's CURVE keys.
        host: address to listen on.
        port: 0 picks a free one.
        is_stopped: asked several times a second.

    Raises:
        ConfigError: prometheus_client is not installed.
        AddressError: the address cannot be listened on.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigError("prometheus_client is not installed: pip install 'spikeloop[metrics]'")
    from prometheus_client import start_http_server
    from prometheus_client.registry import CollectorRegistry

    from service.metrics.collector import WireCollector

    time = DaemonTime(DaemonClient(control, keys))
    registry = CollectorRegistry()
    collector = WireCollector(registry, time.now)
    subscriber = DecodeSubscriber(
        decode, collector.topics, curve_keys=read_curve_keys(keys) if keys else None
    )
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as err:
        raise AddressError(
            f"cannot listen on {host} port {port}: {getattr(err, 'strerror', None) or err}; take "
            "another one with --port"
        ) from err
    sys.stderr.write(f"metrics of {decode} at http://{host}:{server.server_port}/metrics\n")
    sys.stderr.flush()
    time.follow()
    try:
        while not is_stopped():
            _take_one(subscriber, collector.take)
    finally:
        time.stop()
        server.shutdown()
        subscriber.close()


def _take_one(subscriber: DecodeSubscriber, take: Callable[..., None]) -> None:
    try:
        received = subscriber.receive(POLL_S)
    except WireError as err:  # of a daemon that is newer than this program
        sys.stderr.write(f"left out: {err}\n")
        return
    if received is not None:
        take(*received)
