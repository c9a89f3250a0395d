"""Validity of a decode: may it be trusted, and why not (docs/architecture.md, "Validity")?"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streams.messages import Validity

KEEP_ALIVES_MISSED = 3
UNKNOWN_SHARE = 0.2
UNKNOWN_SPIKES = 10
UNKNOWN_OVER_S = 1.0
OVERDUE_HOPS = 2.0
"""A decode made so much later than it was due is not current any more."""

REASONS = {
    "": Validity.OK,
    "context_short": Validity.WARMUP,
    "no_spikes": Validity.STALE,
    "keep_alives_missed": Validity.STALE,
    "incomplete": Validity.STALE,
    "overdue": Validity.STALE,
    "paused": Validity.PAUSED,
    "stopping": Validity.PAUSED,
    "non_finite": Validity.FAULT,
    "unknown_units": Validity.FAULT,
    "backend_error": Validity.FAULT,
    "clock_jump": Validity.FAULT,
    "clock_uncertain": Validity.FAULT,
    "other_clock": Validity.FAULT,
    "spikes_rejected": Validity.FAULT,
    "source_changed": Validity.FAULT,
    "guard": Validity.FAULT,
    "hung": Validity.FAULT,
    "memory_damaged": Validity.FAULT,
}
VALIDITIES = {reason: validity.name.lower() for reason, validity in REASONS.items()}
"""Each reason's validity, as it stands on the wire."""


@dataclass(slots=True)
class ValidityInputs:
    """Facts about a beat that its validity depends on.

    Attributes:
        t_s: now, seconds.
        t_due: when the beat was due to be cut.
        newest_s: newest accepted stamp, keep-alives included; None before the first.
        delay_s: how much later than a hop the source's spikes are waited for.
        keeps_alive: the source sends keep-alives (or regular counts).
        since_reset_s: seconds of input since the memory began.
        spikes_in: spikes so far; `unknown` of them from units that the decoder does not know.
        unknown: see `spikes_in`.
        finite: the network's output is finite.
        backend_ok: the backend ran.
        source_fault: what is wrong with the source as a whole, a reason; "" if nothing is.
        complete: all spikes of the bin can have come, and were taken.
        paused: the operator paused.
        damaged: the decoder's weights or tables are not what they were.
    """

    t_s: float
    t_due: float
    newest_s: float | None
    delay_s: float
    keeps_alive: bool
    since_reset_s: float
    spikes_in: int
    unknown: int
    finite: bool
    backend_ok: bool
    source_fault: str
    complete: bool
    paused: bool
    damaged: bool = False


class ValidityJudge:
    """Judges each beat; the worst reason wins.

    Args:
        context_s: the bundle's `context_s`.
        stale_after_s: the bundle's `stale_after_s`.
        keep_alive_every_s: interval of keep-alives, or of count bins.
        hop_s: between beats.
    """

    def __init__(
        self, context_s: float, stale_after_s: float, keep_alive_every_s: float, hop_s: float
    ) -> None:
        self.context_s, self.hop_s = context_s, hop_s
        self.stale_after_s = stale_after_s
        self._keep_alive_every_s = keep_alive_every_s
        self._keep_alive_limit_s = KEEP_ALIVES_MISSED * keep_alive_every_s
        self._counts: deque[tuple[float, int, int]] = deque()

    def fresh(self) -> ValidityJudge:
        """Return a judge with the same limits that has seen nothing yet."""
        return ValidityJudge(
            self.context_s, self.stale_after_s, self._keep_alive_every_s, self.hop_s
        )

    def judge(self, inputs: ValidityInputs) -> str:
        """Return the worst finding's reason, "" when all is well."""
        found = [reason for reason in self._findings(inputs) if reason]
        return max(found, key=REASONS.__getitem__) if found else ""

    def _findings(self, e: ValidityInputs) -> tuple[str, ...]:
        return (
            "memory_damaged" if e.damaged else "",
            "" if e.backend_ok else "backend_error",
            "" if e.finite else "non_finite",
            e.source_fault,
            "unknown_units" if self._too_many_unknown(e) else "",
            "paused" if e.paused else "",
            self._staleness(e),
            "" if e.t_s <= e.t_due + OVERDUE_HOPS * self.hop_s else "overdue",
            "" if e.complete else "incomplete",
            "context_short" if e.since_reset_s < self.context_s else "",
        )

    def _staleness(self, e: ValidityInputs) -> str:
        if e.newest_s is None:
            return "no_spikes"
        silence_s = e.t_s - e.newest_s - e.delay_s
        if e.keeps_alive:
            return "keep_alives_missed" if silence_s > self._keep_alive_limit_s else ""
        return "no_spikes" if silence_s > self.stale_after_s else ""

    def _too_many_unknown(self, e: ValidityInputs) -> bool:
        self._counts.append((e.t_s, e.spikes_in, e.unknown))
        while len(self._counts) > 1 and self._counts[1][0] <= e.t_s - UNKNOWN_OVER_S:
            self._counts.popleft()
        _, spikes_before, unknown_before = self._counts[0]
        spikes, unknown = e.spikes_in - spikes_before, e.unknown - unknown_before
        return unknown > UNKNOWN_SHARE * spikes and unknown >= UNKNOWN_SPIKES
