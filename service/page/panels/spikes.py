"""Spikes: their rate and fates, and the sender's clock."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any

from service.page.inputs.wire import Heard

SHOWN_S = 60.0


class SpikesPanel:
    """Keeps the heartbeats of the last minute."""

    def __init__(self) -> None:
        self._beats: deque[tuple[float, dict[str, Any]]] = deque(maxlen=90)

    def take(self, heard: Heard) -> None:
        """Take in one message."""
        if heard.topic != "heartbeat":
            return
        if self._beats and self._beats[-1][1]["run_id"] != heard.message["run_id"]:
            self._beats.clear()  # another run begins new counters
        self._beats.append((heard.t_s, heard.message))

    def slow(self, now_s: float) -> dict[str, Any]:
        """Return rates over the last minute, fates a second, and the clock."""
        if not self._beats:
            return {}
        last = self._beats[-1][1]
        pairs = list(pairwise(self._beats))
        rate = [
            [round(t - now_s, 1), _per_s(before, after, "spikes_in", t - t_before)]
            for (t_before, before), (t, after) in pairs
            if t > now_s - SHOWN_S
        ]
        fates = {name: 0.0 for name in last["fates"]}
        if pairs:
            before, after = pairs[-1][0][1], pairs[-1][1][1]
            span_s = max(1e-9, after["t_sent"] - before["t_sent"])
            fates = {n: (after["fates"][n] - before["fates"][n]) / span_s for n in last["fates"]}
        return {
            "rate": rate,
            "fates_per_s": fates,
            "fates": last["fates"],
            "pending": last["spikes_pending"],
            "lost": last["spikes_lost"],
            "disorder_ms": last["disorder_ms"],
            "delay_ms": last["delay_ms"],
            "settle_ms": last["settle_ms"],
            "settling": last["settling"],
            "offset_ms": 1e3 * last["clock_offset_s"],
            "uncertainty_ms": 1e3 * last["clock_uncertainty_s"],
        }


def _per_s(before: dict[str, Any], after: dict[str, Any], field: str, span_s: float) -> float:
    n: float = after[field] - before[field]
    return round(n / max(span_s, 1e-9), 1)
