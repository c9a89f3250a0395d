"""What a daemon told, and what that says of its decodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.messages import Float64s

TAKEN_IN_S = 1e-3
"""A spike that is here so long before a cut is taken in, if the daemon looks."""
EDGE_S = 2e-6
"""A stamp so near a bin's edge may belong to the next bin: stamps are rounded to microseconds."""
SLIDES_AT_MOST = 0.01
"""Of a bin, between one and the next."""
Message = dict[str, Any]


class Told:
    """The messages of one daemon, by topic."""

    def __init__(self) -> None:
        self.decodes: list[Message] = []
        self.timings: list[Message] = []
        self.heartbeats: list[Message] = []
        self.events: list[Message] = []

    def take(self, topic: str, message: Message) -> None:
        """Take in a message."""
        kinds = {"decode": self.decodes, "timing": self.timings, "heartbeat": self.heartbeats}
        kinds.get(topic, self.events).append(message)

    def has_settled_for(self, seconds: float) -> bool:
        """Return True once the settle time has held for so long."""
        settled = [beat["t_sent"] for beat in self.heartbeats if not beat["settling"]]
        return bool(settled) and settled[-1] - settled[0] >= seconds

    def between(self, from_s: float, until_s: float) -> Told:
        """Return what it told of windows, or at times, in [from_s, until_s)."""
        part = Told()
        for name, time in (("decodes", "t_window"), ("timings", "t_window"),
                           ("heartbeats", "t_sent"), ("events", "t_sent")):  # fmt: skip
            messages = getattr(self, name)
            setattr(part, name, [one for one in messages if from_s <= one[time] < until_s])
        return part

    def settle_s_at(self, t_s: float) -> float:
        """Return the settle time in force at `t_s`, as far as heartbeats tell."""
        settle_ms = self.heartbeats[0]["settle_ms"]
        for beat in self.heartbeats:
            if beat["t_sent"] > t_s:
                break
            settle_ms = beat["settle_ms"]
        return float(settle_ms) * 1e-3

    def cut_shares(self) -> dict[str, float]:
        """Return the share of bins that each rule cut."""
        rules, n = np.unique([timing["cut_by"] for timing in self.timings], return_counts=True)
        return dict(zip(rules.tolist(), (n / n.sum()).tolist(), strict=True))

    @property
    def waited(self) -> set[float]:
        """The `t_window` of bins that were cut when the settle time was over."""
        return {timing["t_window"] for timing in self.timings if timing["cut_by"] == "settled"}

    def sent_ms(self) -> Float64s:
        """Return how long after each window's end its decode was sent, (n,)."""
        return np.array([1e3 * (one["t_sent"] - one["t_window"]) for one in self.decodes])

    def ok_share(self) -> float:
        """Return the share of decodes that are `ok`."""
        return float(np.mean([one["validity"] == "ok" for one in self.decodes]))

    def n_late(self) -> int:
        """Return how many spikes became late."""
        if not self.decodes:
            return 0
        return int(self.decodes[-1]["spikes_late"] - self.decodes[0]["spikes_late"])

    def disorder_ms(self) -> float:
        """Return the largest disorder that was told."""
        return float(max((beat["disorder_ms"] for beat in self.heartbeats), default=np.nan))


def lacking(
    whole: Told, decodes: list[Message], stamps: Float64s, here_s: Float64s, bin_s: float
) -> list[tuple[float, int]]:
    """Return the `ok` decodes that lack spikes which were here before the settle time was over.

    Another inlet tells when they were here. A daemon's own may have had them later: that is so
    for a bin that waited for the whole settle time, see `Told.waited`.

    Args:
        whole: what the daemon told from its start on.
        decodes: those to judge.
        stamps: (n,) of all spikes that were sent, increasing.
        here_s: (n,) when each was here.
        bin_s: length of a bin.

    Returns:
        Of each its `t_window`, and how many it lacks at least.
    """
    found = []
    ends_s = np.array([one["t_window"] for one in whole.decodes])
    # Tokens are counted: a bin that has as many as were here has them all, as none is made up.
    for decode in decodes:
        if decode["validity"] != "ok":
            continue
        t_s = decode["t_window"]
        # Beats slide to where blocks end, by up to a thousandth: such a bin is as much shorter.
        near = np.abs(ends_s - (t_s - bin_s)) < SLIDES_AT_MOST * bin_s
        begin_s = ends_s[near].max() if near.any() else t_s - bin_s
        first, last = np.searchsorted(stamps, (begin_s + EDGE_S, t_s - EDGE_S))
        t_settled = t_s + whole.settle_s_at(t_s) - TAKEN_IN_S
        n_there = int((here_s[first:last] <= t_settled).sum())
        if n_there > decode["tokens"]:
            found.append((t_s, n_there - decode["tokens"]))
    return found
