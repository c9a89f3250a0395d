"""Spikes of Blackrock's systems, by pycbsdk 9 and later (read in its source; it was not run)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from streams.bridges.blocks import Block
from streams.clock import Clock
from streams.errors import StreamAbsentError

NS = 1e-9
WAVEFORM_S = 3e-3
"""A spike is sent once its waveform is whole: 48 samples at 30 kHz, and some more may be set."""


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
        raise StreamAbsentError(f"no Blackrock device {device!r}: {err}") from err
    return session


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
        self._newest_ns = -1
        # The library keeps no reference to what is called back.
        self._callback = session.on_event("FRONTEND")(self._on_spike)

    def read(self, timeout_s: float) -> Sequence[Block]:
        """Wait until the device's time goes on, and return what came."""
        t_end = self._clock.now() + timeout_s
        while (now_ns := self._session.time) == self._newest_ns:
            if self._clock.now() >= t_end:
                return ()
            self._clock.sleep_until(self._clock.now() + 1e-3)
        self._newest_ns, arrived_s = now_ns, self._clock.now()
        came = [self._came.popleft() for _ in range(len(self._came))]
        told = np.array(came, np.float64).reshape(-1, 3)
        return (
            Block(
                t_s=told[:, 0],
                ids=told[:, 1:].astype(np.int32),
                device_s=max(now_ns * NS, told[:, 0].max(initial=-math.inf)),
                arrived_s=arrived_s,
                complete_until_s=now_ns * NS - WAVEFORM_S,
            ),
        )

    def close(self) -> None:
        """Hang up."""
        self._session.close()

    def _on_spike(self, header: Any, data: Any) -> None:
        self._came.append((header.time * NS, header.chid, header.type))
