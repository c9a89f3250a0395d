"""Who decodes: one decoder in service, perhaps one in shadow, and the one before standing by.

A new decoder is warmed up by the control thread on the bins that were cut of late, joins at a
beat's boundary, runs after each decode is out, and takes over at a boundary too: no beat waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from service.loop.decoder import Raw, Seat
from streams.messages import SpikeBatch

KEPT_S = 4.0
CATCH_UP_BINS = 8
RANGE_OVER_S = 10.0
RANGE_SHARE = 0.1

Change = Literal["join", "promote", "dismiss", "rollback", "fell_back"]


@dataclass(slots=True)
class Request:
    """A change asked of the beat; `done` is set once it is carried out, `error` says if not."""

    change: Change
    seat: Seat | None = None
    done: threading.Event = field(default_factory=threading.Event)
    error: str = ""


class Lineup:
    """The seats; owned by the beat, asked through `requests` by other threads.

    Args:
        active: the decoder in service.
        hop_us: between beats.
    """

    def __init__(self, active: Seat, hop_us: int) -> None:
        self.active = active
        self.shadow: Seat | None = None
        self.standby: Seat | None = None
        self.requests: deque[Request] = deque()
        self.on_change: Callable[[str, Seat], None] = lambda change, seat: None
        self._hop_us = hop_us
        n_kept = round(KEPT_S * 1e6 / hop_us)
        self.recent: deque[tuple[int, SpikeBatch]] = deque(maxlen=n_kept)
        self._out_of_range: deque[bool] = deque(maxlen=round(RANGE_OVER_S * 1e6 / hop_us))
        self.known = active.decoder.known
        self.all_known = True

    @property
    def behind(self) -> list[Seat]:
        """The decoders that run after the decode is out."""
        return [seat for seat in (self.shadow, self.standby) if seat is not None]

    @property
    def seats(self) -> list[Seat]:
        """Every decoder that runs."""
        return [self.active, *self.behind]

    def follow_source(self) -> None:
        """Take in the keys that the source has shown since."""
        if any([seat.decoder.follow_source() for seat in self.seats]):
            self._merge_known()

    def remember(self, k: int, spikes: SpikeBatch) -> None:
        """Keep a cut bin for the decoders behind, and for those to come."""
        self.recent.append((k, spikes))

    def missed(self, seat: Seat) -> Iterator[tuple[int, SpikeBatch]]:
        """The bins that a decoder has not run yet, oldest first, a few at a time."""
        newest_k = self.recent[-1][0] if self.recent else 0
        n_behind = min(newest_k - seat.decoder.last_k, len(self.recent))
        for i in range(n_behind, max(0, n_behind - CATCH_UP_BINS), -1):
            yield self.recent[-i]

    def attend(self) -> None:
        """At a beat's boundary: carry out what was asked, as far as it can be now."""
        for _ in range(len(self.requests)):
            request = self.requests.popleft()
            if request.change == "promote" and self._is_catching_up():
                self.requests.append(request)
                continue
            request.error = self._carry_out(request)
            request.done.set()

    def watch_range(self, raw: Raw | None) -> None:
        """Roll back when over a tenth of 10 s of decodes leave the manifest's bounds."""
        if self.standby is None or raw is None:
            return
        self._out_of_range.append(not self.active.decoder.in_range(raw))
        limit = RANGE_SHARE * (self._out_of_range.maxlen or 0)
        if sum(self._out_of_range) > limit:
            self._roll_back()
            self.on_change("rolled_back_out_of_range", self.active)

    def _is_catching_up(self) -> bool:
        newest_k = self.recent[-1][0] if self.recent else 0
        return self.shadow is not None and self.shadow.decoder.last_k < newest_k

    def _carry_out(self, request: Request) -> str:
        if request.change == "join":
            self.shadow = request.seat
        elif request.change == "fell_back":
            if request.seat is None or request.seat.decoder.manifest.id != self._id_in_service:
                return "another decoder took over meanwhile"
            request.seat.shaper.continue_from(self.active.shaper)
            self.active = request.seat
        elif request.change == "dismiss":
            self.shadow = None
        elif request.change == "promote":
            if self.shadow is None:
                return "no decoder is in shadow"
            self._seat(self.shadow, standby=self.active)
            self.shadow = None
        elif self.standby is None:
            return "no decoder stands by: nothing was swapped in this run"
        else:
            self._roll_back()
        self._merge_known()
        told = self.active if request.change == "fell_back" else self.shadow or self.active
        self.on_change(request.change, told)
        return ""

    @property
    def _id_in_service(self) -> str:
        return self.active.decoder.manifest.id

    def _roll_back(self) -> None:
        if self.standby is not None:
            self._seat(self.standby, standby=self.active)

    def _seat(self, seat: Seat, standby: Seat) -> None:
        seat.shaper.continue_from(standby.shaper)
        self.active, self.standby = seat, standby
        self._out_of_range.clear()

    def _merge_known(self) -> None:
        # The source's list may grow meanwhile: those who follow it later know of more keys.
        for seat in self.seats:
            seat.decoder.follow_source()
        known = self.active.decoder.known
        self.known = known
        for seat in self.behind:
            self.known = self.known | seat.decoder.known[: len(known)]
        self.all_known = bool(np.array_equal(self.known, known))
