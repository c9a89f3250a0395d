"""Watermark: up to which stamp everything has come.

A spike says by its stamp that those stamped earlier have come, up to the source's disorder. A
keep-alive at the end of a block (or a bin of counts) says so of the block. Both are held to it: how
far behind an earlier one a spike was stamped is measured, and kept for a minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from service.loop.intake.arrivals import Arrival
from service.loop.intake.completeness import UsualMost
from service.loop.intake.rejected import Happened
from streams.messages import Int64s

LEARNT_AFTER_S = 9.5
"""Watched for so long before it is trusted: as long as the settle time is measured."""
RECORD_US, AGAIN_AFTER_S = 200, 5.0
"""Spikes that fell so much further behind than any before: how far the next will, nobody knows. The
watermark is not trusted until no more have for so long."""
TOLD_US = 1000
"""A change of the disorder is told from here on."""
CAUSE = (
    "spikes come up to {ms:.1f} ms after {of} with later stamps: bins are cut that much later, at "
    "the latest after the settle time, until spikes have come in order for a minute"
)


class Disorder:
    """Distance by which stamps fell behind a stamp that came before them.

    Attributes:
        newest_us: the newest stamp; None before the first.

    Args:
        of: whose stamp came before.
    """

    def __init__(self, of: str) -> None:
        self.newest_us: int | None = None
        self._of, self._most, self._kept_us, self._told_us = of, UsualMost(), 0, 0

    @property
    def most_us(self) -> int:
        """The largest in the last minute."""
        return self._kept_us

    @property
    def until_us(self) -> int | None:
        """Everything up to here has come; None before the first stamp."""
        return None if self.newest_us is None else self.newest_us - self._kept_us

    def note(self, behind_us: int, t_s: float) -> bool:
        """Note how far stamps that arrived at `t_s` are behind; return True for a record."""
        is_record = behind_us > self._kept_us + RECORD_US
        self._most.add(t_s, behind_us)
        self._kept_us = int(self._most.most_s)
        return is_record

    def change(self, *, is_news: bool) -> dict[str, Any] | None:
        """Return the detail for an event if the disorder has changed by much, and that is news."""
        now_us, was_us = self._kept_us, self._told_us
        if abs(now_us - was_us) < TOLD_US and not (was_us and now_us == 0):
            return None
        self._told_us = now_us
        detail: dict[str, Any] = {"behind": self._of, "disorder_ms": now_us * 1e-3}
        if now_us > was_us:
            detail["warning"] = CAUSE.format(of=self._of, ms=now_us * 1e-3)
        return detail if is_news else None

    def advance(self, newest_us: int) -> None:
        """Note a stamp."""
        self.newest_us = newest_us if self.newest_us is None else max(newest_us, self.newest_us)


class Watermark:
    """Follows up to where a source is complete; owned by the loop.

    Attributes:
        is_learnt: the source's order has been watched long enough, and is as it was.
    """

    def __init__(self) -> None:
        self._happened: deque[Happened] = deque(maxlen=100)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another stream has come, or the same after an outage: stamps may begin anew."""
        self._spikes, self._marks = Disorder("spikes"), Disorder("keep-alives")
        self._is_new, self._t_known_s, self._t_trusted_s = True, 0.0, 0.0
        self.is_learnt = False

    @property
    def disorder_s(self) -> float:
        """Distance by which spikes fell behind later ones in the last minute, at most."""
        return self._spikes.most_us * 1e-6

    @property
    def until_us(self) -> int | None:
        """Everything up to this stamp has come, as far as can be known; None: nothing is known."""
        known = [us for us in (self._spikes.until_us, self._marks.until_us) if us is not None]
        return max(known, default=None)

    def has_passed(self, end_us: int) -> bool:
        """Return True if everything stamped up to `end_us` has come."""
        spikes_us, marks_us = self._spikes.until_us, self._marks.until_us
        # Another spike may have the newest one's stamp; a mark says that there is none.
        return (spikes_us is not None and spikes_us > end_us) or (
            marks_us is not None and marks_us >= end_us
        )

    def note(self, arrival: Arrival, present_us: Int64s, t0_s: float, settle_s: float) -> None:
        """Take in an arrival.

        Args:
            arrival: what came.
            present_us: (n,) its spikes' stamps that do not lie in the future, as they were sent.
            t0_s: where stamps count from.
            settle_s: what comes later than so is late by any rule, and tells no disorder.
        """
        t_s, mark_us = arrival.t_s, arrival.newest_keep_alive_us
        if self._is_new:
            self._is_new, self._t_known_s = False, t_s + LEARNT_AFTER_S
            self._t_trusted_s = self._t_known_s
        if len(present_us):
            self._note_spikes(present_us, t_s, (t_s - t0_s - settle_s) * 1e6)
        if mark_us is not None and mark_us <= arrival.latest_us:
            self._marks.advance(mark_us)
        self.is_learnt = t_s >= self._t_trusted_s
        for disorder in (self._spikes, self._marks):
            if told := disorder.change(is_news=t_s > self._t_known_s):
                self._happened.append(Happened("disorder", told))

    def drain(self) -> Iterator[Happened]:
        """Yield what happened since the last time."""
        while self._happened:
            yield self._happened.popleft()

    def _note_spikes(self, t_us: Int64s, t_s: float, since_us: float) -> None:
        spikes, marks = self._spikes, self._marks
        behind_us, newest_us = 0, t_us[0] if spikes.newest_us is None else spikes.newest_us
        if t_us[0] < newest_us or (t_us[1:] < t_us[:-1]).any():
            newest_of_us = np.maximum.accumulate(np.concatenate(([newest_us], t_us)))[:-1]
            behind_us = int((newest_of_us - t_us)[t_us >= since_us].max(initial=0))
        is_record = spikes.note(behind_us, t_s)
        if marks.newest_us is not None:
            in_time_us = t_us[t_us >= since_us]
            is_record |= marks.note(int((marks.newest_us - in_time_us).max(initial=0)), t_s)
        if is_record:
            self._t_trusted_s = max(self._t_trusted_s, t_s + AGAIN_AFTER_S)
        spikes.advance(int(np.maximum.reduce(t_us)))
