"""Spikes of Blackrock's systems, by pycbsdk 9 and later."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streams.bridges.blocks import Block
from streams.clock import Clock
from streams.errors import StreamAbsentError

NS = 1e-9
WAVEFORM_S = 3e-3
"""A spike is sent once its waveform is whole: 48 samples at 30 kHz, and some more may be set."""
RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
RECEIVE_BUFFER_BYTES = 6_000_000
POLL_S = 1e-3
"""The device's time is asked for so often where no spike comes."""


class Session(Protocol):
    """The part of `pycbsdk.Session` that is used."""

    @property
    def time(self) -> int:
        """The device's newest time, ns."""

    def on_event(self, channel_type: Any) -> Callable[[Any], Any]:
        """Register a function of (header, data) for each spike."""

    def close(self) -> None:
        """Hang up."""


def open_session(device: str) -> Session:
    """Connect to a device.

    Raises:
        StreamAbsentError: pycbsdk is not installed, or there is no such device.
    """
    try:
        import pycbsdk
    except (ImportError, OSError) as err:
        raise StreamAbsentError(f"pycbsdk cannot be used ({err}): `pip install pycbsdk`") from err
    try:
        session: Session = pycbsdk.Session(device)
    except (RuntimeError, ValueError, TypeError) as err:
        hint = _hint_of_buffer()
        raise StreamAbsentError(f"no Blackrock device {device!r}: {err}{hint}") from err
    return session


def _hint_of_buffer() -> str:
    """Say so where Linux allows no buffer as large as the library insists on; "" elsewhere."""
    try:
        most = int(RMEM_MAX.read_text())
    except (OSError, ValueError):
        return ""
    if most >= RECEIVE_BUFFER_BYTES:
        return ""
    return (
        f"; pycbsdk needs a larger receive buffer than the {most} bytes that Linux allows here: "
        f"`sudo sysctl -w net.core.rmem_max=16777216`"
    )


class BlackrockSource:
    """Reads a session's spikes; pycbsdk calls back from a thread of its own.

    Args:
        clock: LSL's.
        session: connected.
    """

    def __init__(self, clock: Clock, session: Session) -> None:
        self._clock, self._session = clock, session
        self.warnings: list[str] = []
        self._came: deque[tuple[float, int, int]] = deque()
        self._has_come = threading.Event()
        self._newest_ns = -1
        # The library keeps no reference to what is called back.
        self._callback = session.on_event("FRONTEND")(self._on_spike)

    def read(self, timeout_s: float) -> Sequence[Block]:
        """Wait for spikes or until the device's time goes on, and return what came."""
        t_end = self._clock.now() + timeout_s
        while (now_ns := self._session.time) == self._newest_ns and not self._came:
            if self._clock.now() >= t_end:
                return ()
            self._has_come.wait(POLL_S)
        self._has_come.clear()  # before they are taken: none that comes meanwhile waits
        came = [self._came.popleft() for _ in range(len(self._came))]
        told, arrived_s = np.array(came, np.float64).reshape(-1, 3), self._clock.now()
        # A spike may be called back only after the time that came with it was asked for.
        is_later, self._newest_ns = now_ns != self._newest_ns, now_ns
        return (
            Block(
                t_s=told[:, 0],
                ids=told[:, 1:].astype(np.int32),
                device_s=now_ns * NS if is_later else None,
                arrived_s=arrived_s,
                complete_until_s=now_ns * NS - WAVEFORM_S,
            ),
        )

    def close(self) -> None:
        """Hang up."""
        self._session.close()

    def _on_spike(self, header: Any, data: Any) -> None:
        self._came.append((header.time * NS, header.chid, header.type))
        self._has_come.set()
