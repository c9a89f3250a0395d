"""A bare timer: a process that only waits, to tell the machine's lateness from ours."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass
from types import FrameType

from streams.clock import Clock, MonotonicClock


@dataclass(slots=True)
class TimerCounts:
    """Beats of a timer that does nothing; late by the daemon's rule."""

    beats: int = 0
    late: int = 0
    skipped: int = 0

    @property
    def missed(self) -> int:
        """Late and skipped beats."""
        return self.late + self.skipped


def run_timer(clock: Clock, hop_s: float, seconds: float, stop: list[bool]) -> TimerCounts:
    """Wait for a deadline every `hop_s`; one that wakes over half a hop late is late.

    Args:
        clock: to wait on.
        hop_s: between deadlines.
        seconds: how long.
        stop: a list that turns non-empty when the run should end early.
    """
    counts, t0_s, k = TimerCounts(), clock.now(), 0
    while k * hop_s < seconds and not stop:
        due = int((clock.now() - t0_s) / hop_s)
        counts.skipped += max(0, due - (k + 1))
        k = max(k + 1, due)
        clock.sleep_until(t0_s + k * hop_s)
        counts.beats += 1
        counts.late += clock.now() > t0_s + (k + 0.5) * hop_s
    return counts


def run_and_print(hop_s: float, seconds: float) -> None:
    """Run until the time is over or SIGTERM comes, and print the counts as JSON."""
    stop: list[bool] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.append(True)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    counts = run_timer(MonotonicClock(), hop_s, seconds, stop)
    sys.stdout.write(json.dumps(asdict(counts) | {"missed": counts.missed}) + "\n")
