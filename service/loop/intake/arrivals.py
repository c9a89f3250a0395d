"""An arrival, its sender, and its observer."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from streams.messages import Int64s, Repeats, SpikeBatch


@dataclass(frozen=True, slots=True)
class Arrival:
    """The content of one pull, on the daemon's clock.

    Attributes:
        t_s: when it arrived.
        t_read_s: when it was read, and could be admitted.
        batch: the spikes; stamps in microseconds since t0.
        latest_us: stamps beyond this lie in the future.
        newest_keep_alive_us: None where the pull held none.
        invalid_us: (n,) invalid spikes' stamps; 0 if the stamp is invalid too.
        n_duplicate: spikes whose sequence number came before.
        n_lost: sequence numbers that never came.
        n_ignored: spikes from units that the config leaves out.
        repeats: which of an equal unit and stamp are duplicates.
        age_s: arrival - newest stamp; NaN where nothing had a stamp.
        bins_us: (m,) ends of the count bins that the pull brought whole; None for events.
        phase_s: drift of the count bins since t0 was chosen, seconds.
        begins_anew: the first after a stream was lost and came back.
    """

    t_s: float
    t_read_s: float
    batch: SpikeBatch
    latest_us: int
    newest_keep_alive_us: int | None
    invalid_us: Int64s
    n_duplicate: int = 0
    n_lost: int = 0
    n_ignored: int = 0
    repeats: Repeats = "all"
    age_s: float = float("nan")
    bins_us: Int64s | None = None
    phase_s: float = 0.0
    begins_anew: bool = False


class Arrivals(Protocol):
    """Hands arrivals over: the ingest thread, or a test."""

    def await_arrival(self, wait_s: float) -> None:
        """Return once something was handed over, at the latest after `wait_s`."""

    def held_off(self) -> AbstractContextManager[None]:
        """Convert no new arrivals meanwhile."""


class Observer(Protocol):
    """Telemetry: notes every arrival, and returns at once."""

    def arrival(self, arrival: Arrival) -> None:
        """Note an arrival that is being admitted."""
