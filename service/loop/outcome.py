"""When beats fall, what each came to, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass

from service.loop.decoder import Raw


@dataclass(slots=True)
class Schedule:
    """When beats fall: beat k ends its window at `t0_s + k * hop_us`, k = 1, 2, ...

    Attributes:
        t0_s: on the daemon's clock; where a source of counts drifts it moves with its bins.
        hop_us: between beats.
    """

    t0_s: float
    hop_us: int

    def window_end_s(self, k: int) -> float:
        """`t_window` of beat k."""
        return self.t0_s + k * self.hop_us * 1e-6

    def newest_due(self, t_s: float, settle_s: float) -> int:
        """The newest beat whose cutting may start at `t_s`."""
        return int((t_s - settle_s - self.t0_s) / (self.hop_us * 1e-6))


@dataclass(slots=True)
class BeatCounts:
    """What became of the beats."""

    seq: int = 0
    late: int = 0
    skipped: int = 0
    resets: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a decoder: what it said of beat k, and when.

    Attributes:
        t_cut: from here on no spike is taken into the bin.
        t_tokens: the graph began; `t_cut` where the decode was made ahead.
        run_s: how long cutting and the graph took, be it before `t_cut`.
        was_ahead: whether it was.
    """

    k: int
    t_window: float
    t_cut: float
    t_tokens: float
    t_done: float
    raw: Raw | None
    n_tokens: int
    token_cap: int | None
    run_s: float
    was_ahead: bool = False
