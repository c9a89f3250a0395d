"""The one clock. Nothing else in the project reads time; everything is handed a `Clock`.

LSL's clock on Linux is the monotonic clock, so that this clock and `local_clock()` are the same
(a system test holds them together).
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streams.messages import Float64s, Int64s

FAR_S = 1e8


def stamps_to_us(stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
    """Foreign stamps as whole microseconds since t0, rounded once; bounded at three years.

    Args:
        stamps: (n,) seconds on the foreign clock.
        offset_s: what is added to them to make them ours.
        t0_s: on our clock.
    """
    since_s = stamps + offset_s
    since_s -= t0_s
    np.maximum(since_s, -FAR_S, out=since_s)
    np.minimum(since_s, FAR_S, out=since_s)
    since_s *= 1e6
    return np.rint(since_s, out=since_s).astype(np.int64)


class Clock(Protocol):
    """Monotonic seconds, and a way to wait for them."""

    def now(self) -> float:
        """Seconds on the daemon's clock."""

    def sleep_until(self, t_s: float) -> None:
        """Return at `t_s`, or at once when it has passed."""

    def spin_until(self, t_s: float) -> None:
        """The same without giving up the core: for less than a millisecond."""


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Read `time.monotonic`, seconds."""
        return time.monotonic()

    def sleep_until(self, t_s: float) -> None:
        """Sleep on an absolute deadline; never returns early."""
        while (left_s := t_s - time.monotonic()) > 0:
            time.sleep(left_s)

    def spin_until(self, t_s: float) -> None:
        """Ask for the time until it is `t_s`; each time, let go the interpreter's lock."""
        while time.monotonic() < t_s:
            time.sleep(0)


class ThreadClock:
    """The calling thread's own processor time: what another program took does not count."""

    def now(self) -> float:
        """Read `time.thread_time`, seconds."""
        return time.thread_time()

    def sleep_until(self, t_s: float) -> None:
        """A thread that sleeps takes no processor time: not to be asked for.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("processor time does not pass while a thread sleeps")

    def spin_until(self, t_s: float) -> None:
        """Use up processor time until `t_s`."""
        while time.thread_time() < t_s:
            pass


class ManualClock:
    """A clock that stands still until a test moves it; sleeping moves it to the deadline."""

    def __init__(self, t_s: float = 0.0) -> None:
        self.t_s = t_s

    def now(self) -> float:
        """Seconds, as set."""
        return self.t_s

    def sleep_until(self, t_s: float) -> None:
        """Jump to `t_s` unless it has passed."""
        self.t_s = max(self.t_s, t_s)

    def spin_until(self, t_s: float) -> None:
        """Do the same as `sleep_until`."""
        self.sleep_until(t_s)


@dataclass(frozen=True, slots=True)
class OffsetEstimate:
    """One measurement against a sender's clock: `t_local = t_sender + offset_s`."""

    t_s: float
    offset_s: float
    uncertainty_s: float


SAME_HOST_LIMIT_S = 0.5e-3
JUMP_LIMIT_S = 20e-3
STEADY_ESTIMATES = 3
DRIFT = 1e-4
"""Seconds a second by which a kept estimate becomes less certain: more than a crystal drifts."""


class ClockOffset:
    """A sender's clock offset with its history; written by one thread, read by others.

    A sender on this host whose measured offset is under 0.5 ms shares our clock and gets offset 0;
    so does one whose offset is no larger than its uncertainty. On a busy machine one way of the
    measurement is held up: -1.1 ms with an uncertainty of 2.3 ms was seen, and moved spikes to
    other bins for seconds. For the same reason an estimate stays in force until one comes that is
    as certain, or that contradicts it.

    Args:
        same_host: whether the sender runs on this machine.
        n_kept: estimates kept.
    """

    def __init__(self, *, same_host: bool, n_kept: int = 720) -> None:
        self.same_host = same_host
        self.history: deque[OffsetEstimate] = deque(maxlen=n_kept)
        self._current = OffsetEstimate(0.0, 0.0, 0.0)
        self._n_steady = STEADY_ESTIMATES
        self._lock = threading.Lock()

    @property
    def current(self) -> OffsetEstimate:
        """The estimate in force."""
        return self._current

    @property
    def jumped(self) -> bool:
        """True if an estimate lay over 20 ms from the one before it, and few agreed since."""
        return self._n_steady < STEADY_ESTIMATES

    def add(self, measured: OffsetEstimate) -> None:
        """Take a new measurement into force."""
        offset_s = measured.offset_s
        if self.same_host and (
            abs(offset_s) < SAME_HOST_LIMIT_S or abs(offset_s) <= measured.uncertainty_s
        ):
            offset_s = 0.0
        with self._lock:
            estimate = OffsetEstimate(measured.t_s, offset_s, measured.uncertainty_s)
            is_first, before = not self.history, self.history[-1] if self.history else estimate
            jump = abs(estimate.offset_s - before.offset_s) > JUMP_LIMIT_S
            self._n_steady = 0 if jump else self._n_steady + 1
            self.history.append(estimate)
            if is_first or jump or self._is_better(estimate):
                self._current = estimate

    def _is_better(self, estimate: OffsetEstimate) -> bool:
        """Return True if a measurement is as certain as the one in force, or contradicts it."""
        kept = self._current
        kept_s = kept.uncertainty_s + DRIFT * max(0.0, estimate.t_s - kept.t_s)
        apart_s = abs(estimate.offset_s - kept.offset_s)
        return estimate.uncertainty_s <= kept_s or apart_s > estimate.uncertainty_s + kept_s


def wait_readable(fd: int, timeout_s: float) -> bool:
    """Wait until a file descriptor has something to read, at most `timeout_s` seconds."""
    return bool(select.select([fd], [], [], max(0.0, timeout_s))[0])
