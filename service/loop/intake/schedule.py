"""The beats' time grid."""

from __future__ import annotations


class Schedule:
    """Times of beats: beat k ends its window at `t0_s + k * hop_us`, k = 1, 2, ...

    Attributes:
        t0_s: on the daemon's clock; if a counting source drifts, it moves with its bins.

    Args:
        t0_s: at the start.
        hop_us: between beats.
    """

    def __init__(self, t0_s: float, hop_us: int) -> None:
        self.t0_s, self.hop_us, self.hop_s = t0_s, hop_us, hop_us * 1e-6
        self._first_t0_s = t0_s

    def move(self, moved_s: float) -> None:
        """Move all beats so far from where they fell at the start."""
        self.t0_s = self._first_t0_s + moved_s

    def window_end_s(self, k: int) -> float:
        """Return beat k's `t_window`."""
        return self.t0_s + k * self.hop_us * 1e-6

    def newest_due(self, t_s: float, settle_s: float) -> int:
        """Return the newest beat whose cutting may start at `t_s`."""
        return int((t_s - settle_s - self.t0_s) / self.hop_s)
