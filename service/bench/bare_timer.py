"""A bare timer: a process that only waits, to tell the machine's lateness from ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from service.signals import until_signalled
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


def run_timer(
    clock: Clock, hop_s: float, seconds: float, is_stopped: Callable[[], bool] = lambda: False
) -> TimerCounts:
    """Wait for a deadline every `hop_s`; one that wakes over half a hop late is late.

    Args:
        clock: to wait on.
        hop_s: between deadlines.
        seconds: how long.
        is_stopped: asked whether to end early.
    """
    counts, t0_s, k = TimerCounts(), clock.now(), 0
    while k * hop_s < seconds and not is_stopped():
        due = int((clock.now() - t0_s) / hop_s)
        counts.skipped += max(0, due - (k + 1))
        k = max(k + 1, due)
        clock.sleep_until(t0_s + k * hop_s)
        counts.beats += 1
        counts.late += clock.now() > t0_s + (k + 0.5) * hop_s
    return counts


def run_and_print(hop_s: float, seconds: float) -> None:
    """Run until the time is over or SIGTERM comes, and print the counts as JSON."""
    counts = run_timer(MonotonicClock(), hop_s, seconds, until_signalled())
    sys.stdout.write(json.dumps(asdict(counts) | {"missed": counts.missed}) + "\n")
