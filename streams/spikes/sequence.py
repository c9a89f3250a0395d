"""Sequence numbers: samples that came twice, and how many never came."""

from __future__ import annotations

import numpy as np

from streams.messages import Float64s, Int32s, Int64s

SEQ_KEPT = 65_536
SEQ_WRAP = 2**31


class SequenceCheck:
    """Finds samples that came twice and numbers that never came.

    A source that restarts counts from 0 again: a number that comes again with another stamp (its
    machine may have restarted, and its clock with it), or one from before our time after a silence,
    lets the count begin anew.

    Attributes:
        seen: (SEQ_KEPT,) the newest numbers, each at its rest.
        stamp_s: (SEQ_KEPT,) their stamps.
        next_number: the one to come; -1 before the first.
        newest_s: the latest stamp.

    Args:
        restart_after_s: how much later, and how long a silence.
    """

    def __init__(self, restart_after_s: float = 0.5) -> None:
        self._restart_after_s = restart_after_s
        self.seen = np.full(SEQ_KEPT, -1, dtype=np.int64)
        self.stamp_s = np.zeros(SEQ_KEPT)
        self.next_number = -1
        self.newest_s = -np.inf

    def fresh(self, seq: Int64s, t_s: Float64s) -> tuple[np.ndarray, int]:
        """Find new samples, and how many numbers were jumped over. (n,), (n,) -> (n,) bool."""
        if self.next_number > SEQ_WRAP // 2:  # an int32 begins anew at 0 after 2**31 samples
            seq = seq + self.next_number // SEQ_WRAP * SEQ_WRAP
            seq = np.where(seq < self.next_number - SEQ_WRAP // 2, seq + SEQ_WRAP, seq)
        if self.next_number < 0 or self._is_restart(int(seq[0]), float(t_s[0])):
            # Numbers from before a restart would make new samples look repeated.
            self.seen[:] = -1
            self.next_number = int(seq[0])
            self.newest_s = -np.inf
        if self.go_on(seq, t_s):
            return np.ones(len(seq), np.bool_), 0
        fresh = np.zeros(len(seq), np.bool_)
        # Among equal numbers in one pull the first is the sample.
        fresh[np.unique(seq, return_index=True)[1]] = True
        fresh &= self.seen[seq % SEQ_KEPT] != seq
        self.seen[seq[fresh] % SEQ_KEPT] = seq[fresh]
        self.stamp_s[seq[fresh] % SEQ_KEPT] = t_s[fresh]
        # A number behind the expected one is late, not lost: only gaps ahead count.
        ahead = np.unique(seq[fresh & (seq >= self.next_number)])
        n_lost = int(ahead[-1] + 1 - self.next_number - len(ahead)) if len(ahead) else 0
        self.next_number = (
            max(self.next_number, int(ahead[-1]) + 1) if len(ahead) else self.next_number
        )
        self.newest_s = max(self.newest_s, float(t_s.max()))
        return fresh, n_lost

    def go_on(self, seq: Int64s | Int32s, t_s: Float64s) -> bool:
        """Return True if all are new and none is missing, as nearly always; then note them."""
        if seq[0] != self.next_number or not (seq[1:] - seq[:-1] == 1).all():
            return False
        first = int(seq[0]) % SEQ_KEPT
        # Slices are written faster than indices, and the end is met seldom.
        if first + len(seq) <= SEQ_KEPT:
            self.seen[first : first + len(seq)] = seq
            self.stamp_s[first : first + len(seq)] = t_s
        else:
            kept = slice(-SEQ_KEPT, None)
            self.seen[seq[kept] % SEQ_KEPT] = seq[kept]
            self.stamp_s[seq[kept] % SEQ_KEPT] = t_s[kept]
        self.next_number = int(seq[-1]) + 1
        self.newest_s = max(self.newest_s, float(np.maximum.reduce(t_s)))
        return True

    def _is_restart(self, seq: int, t_s: float) -> bool:
        if seq >= self.next_number:
            return False
        slot = seq % SEQ_KEPT
        if self.seen[slot] == seq:
            return abs(t_s - float(self.stamp_s[slot])) > self._restart_after_s
        return t_s > self.newest_s + self._restart_after_s
