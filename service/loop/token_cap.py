"""The adaptive deadline: when decoding nears its time, fewer tokens a beat, and nothing else shed.

The tokens that stay are spread evenly over units (`evenly_over_units` of the tokenizer), so that
each unit keeps its share; the spikes left out are `overflow`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

LIMIT_OF_HOP = 0.4
"""Decoding that takes longer nears its budget: a beat is late after half a hop."""
TARGET_OF_HOP = 0.3
SLOTS_OF_HOP = 0.8
"""All decoders of a beat, those in shadow and standing by too, share this much of a hop."""
N_WATCHED = 8
N_OVER = 3
N_CALM = 25
GROWTH = 1.25
LEAST_TOKENS = 64
N_NO_RETRY = 500
HELPED = 0.9


@dataclass(frozen=True, slots=True)
class CapChange:
    """The cap began, moved, or (`cap` None) ended.

    Attributes:
        cap: tokens a beat from now on; None for no cap.
        before: the cap until now.
        why: `slow` (decoding neared its limit), `burst` (a bin of more tokens than fit), `room`
            (it went well), `no_use` (fewer tokens made decoding no faster).
        taken_s: how long decoding took lately, seconds.
        limit_s: what it may take.
    """

    cap: int | None
    before: int | None
    why: str
    taken_s: float
    limit_s: float


class TokenCap:
    """Watches how long decoding takes and says how many tokens the next beat may hold.

    Of the last 8 runs, 3 above the limit (0.4 of a hop) lower the cap to what the target (0.3 of a
    hop) has time for, if time goes with tokens. 25 runs, of which at most 2 leave no room for a
    quarter more, raise it by that; a cap that touched nothing for so long ends. If fewer tokens
    make nothing faster it ends too: then another program has the core, and no spike is the cause.

    Attributes:
        in_force: tokens a beat; None for no cap.

    Args:
        hop_s: between beats.
        on_change: called with each change.
    """

    def __init__(
        self, hop_s: float, on_change: Callable[[CapChange], None] = lambda change: None
    ) -> None:
        self.in_force: int | None = None
        self._on_change = on_change
        self._hop_s = hop_s
        self._runs: deque[tuple[float, int]] = deque(maxlen=N_WATCHED)
        self._n_runs = self._n_tight = self._n_blocked = self._n_proven = 0
        self._has_touched = False
        self._at_start: tuple[float, int] | None = None

    def limit_s(self, n_slots: int = 1) -> float:
        """Return the time for one decoder's run if `n_slots` run every beat."""
        return self._hop_s * min(LIMIT_OF_HOP, SLOTS_OF_HOP / n_slots)

    def offer(self, n_spikes: int, n_fitting: int | None) -> None:
        """Before a run: a bin of more tokens than are known to fit is capped at once.

        Args:
            n_spikes: in the bin.
            n_fitting: tokens that the limit has time for, by what the backend took when it was
                opened; None where that is not known.
        """
        if self.in_force is not None:
            self._has_touched |= n_spikes > self.in_force
        if n_fitting is None:
            return
        n_most = max(n_fitting, LEAST_TOKENS, int(GROWTH * self._n_proven))
        if n_spikes > n_most and (self.in_force is None or self.in_force > n_most):
            self._change(n_most, "burst", 0.0, self.limit_s())
            self._has_touched = True

    def note(self, n_tokens: int, taken_s: float, n_slots: int = 1) -> None:
        """After a run with `n_tokens` that took `taken_s`: keep, lower, raise or end the cap."""
        limit_s = self.limit_s(n_slots)
        target_s = limit_s * TARGET_OF_HOP / LIMIT_OF_HOP
        if taken_s <= target_s:
            self._n_proven = max(self._n_proven, n_tokens)
        self._runs.append((taken_s, n_tokens))
        self._n_runs += 1
        self._n_tight += taken_s * GROWTH > target_s
        self._n_blocked = max(0, self._n_blocked - 1)
        over = sorted(run for run in self._runs if run[0] > limit_s)
        if len(over) >= N_OVER:
            self._lower(*over[len(over) // 2], target_s, limit_s)
        elif self._n_runs >= N_CALM:
            self._relax(taken_s, limit_s)

    def _lower(self, taken_s: float, n_tokens: int, target_s: float, limit_s: float) -> None:
        if n_tokens <= LEAST_TOKENS or self._n_blocked:
            return
        self._n_proven = 0
        if self._is_no_use(taken_s, n_tokens):
            self._n_blocked = N_NO_RETRY
            self._change(None, "no_use", taken_s, limit_s)
            return
        self._at_start = self._at_start or (taken_s, n_tokens)
        cap = max(LEAST_TOKENS, int(n_tokens * target_s / taken_s))
        self._change(cap, "slow", taken_s, limit_s)

    def _is_no_use(self, taken_s: float, n_tokens: int) -> bool:
        """Return True if a run with far fewer tokens took as long as at the cap's start."""
        if self.in_force is None or self._at_start is None:
            return False
        start_s, n_start = self._at_start
        return n_tokens <= n_start // 2 and taken_s > HELPED * start_s

    def _relax(self, taken_s: float, limit_s: float) -> None:
        """Raise the cap where there is room; end it where it touched nothing."""
        self._at_start = None
        if self.in_force is not None and not self._has_touched:
            self._change(None, "room", taken_s, limit_s)
        elif self.in_force is not None and self._n_tight < N_OVER:
            self._change(int(GROWTH * self.in_force), "room", taken_s, limit_s)
        else:
            self._watch_anew()

    def _change(self, cap: int | None, why: str, taken_s: float, limit_s: float) -> None:
        before, self.in_force = self.in_force, cap
        self._runs.clear()
        self._watch_anew()
        if cap != before:
            self._on_change(CapChange(cap, before, why, taken_s, limit_s))

    def _watch_anew(self) -> None:
        self._n_runs = self._n_tight = 0
        self._has_touched = False
