"""One stream being recorded: its pieces, its clock, its stamps, and the search when it is away."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.clock import Clock, ClockOffset, OffsetEstimate
from streams.lsl.inlets import Inlet
from streams.messages import Float64s
from streams.sessions.record.losses import Outage, SequenceCount, StampWatch
from streams.sessions.record.search import PulledBlock, Puller, Search, Wanted, arrival_stamps
from streams.sessions.xdf import chunks as xdf

OFFSET_EVERY_S = 5.0
OFFSET_WITHIN_S = 2.0
SILENT_S = 3.0
"""A stream that is silent for so long is asked whether it is still there, and again so often."""
ASK_WITHIN_S = 1.5


@dataclass(slots=True)
class _Piece:
    """A stream as long as one outlet has lived."""

    number: int
    inlet: Inlet
    puller: Puller
    watch: StampWatch
    offset: ClockOffset
    n_samples: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    has_offset: bool = False
    t_heard_s: float = 0.0
    t_offset_s: float = -np.inf
    measuring: Future[OffsetEstimate | None] | None = None
    asking: Future[bool] | None = None
    n_unanswered: int = 0
    has_ended: bool = False


@dataclass(slots=True)
class Track:
    """A stream that was asked for, over all its pieces.

    Attributes:
        wanted: what was asked for.
        name: the stream's.
        clock: LSL's.
        write: appends to the file.
        new_number: gives a number for a new stream in the file.
        say: tells the user something now.
        pool: for what takes long.
        by_arrival: whether samples are stamped with their arrival.
        outages: in order; the last one may still go on.
    """

    wanted: Wanted
    name: str
    clock: Clock
    write: Callable[[bytes], None]
    new_number: Callable[[], int]
    say: Callable[[str], None]
    pool: ThreadPoolExecutor
    by_arrival: bool
    t_start_s: float
    outages: list[Outage] = field(default_factory=list)
    _pieces: list[_Piece] = field(default_factory=list)
    _search: Search | None = None
    _sequence: SequenceCount | None = None
    _n_lost_before: int = 0

    def begin(self, inlet: Inlet) -> None:
        """Record this inlet, which is open, from now on."""
        what, number = inlet.description, self.new_number()
        self._sequence = self._sequence or SequenceCount(inlet.labels)
        self.write(xdf.frame(xdf.STREAM_HEADER, inlet.xml.encode(), number))
        piece = _Piece(
            number=number,
            inlet=inlet,
            puller=Puller(inlet, self.clock),
            watch=StampWatch(what, self.t_start_s if not self._pieces else -np.inf),
            offset=ClockOffset(same_host=inlet.same_host),
            t_heard_s=self.clock.now(),
        )
        self._pieces.append(piece)
        piece.puller.start()

    def step(self) -> None:
        """Write what came, measure the clock, and look for the stream if it is away.

        Raises:
            StreamUnfitError: the recording has just begun, and the stamps are another clock's.
        """
        if self._search is not None:
            self._look_again(self._search)
            return
        piece, now_s = self._pieces[-1], self.clock.now()
        has_ended = piece.puller.has_lost.is_set()
        self._take(piece)
        self._measure(piece, now_s)
        if has_ended or self._has_gone(piece, now_s):
            if has_ended:
                self._end_piece(piece)
            self.say(f"{self.name!r} is away; it is looked for, and the others are recorded on")
            self.outages.append(Outage(self.name, self._since_start(piece.t_heard_s)))
            self._n_lost_before = 0 if self._sequence is None else self._sequence.n_lost
            self._search = Search(self.wanted, piece.inlet)

    def end(self) -> None:
        """Write what is left, and the footer."""
        piece = self._pieces[-1]
        if self._search is not None:
            self._search.end()
            self._remark(self._search)
        if piece.has_ended:
            return
        if not piece.has_offset and piece.measuring is not None:
            piece.measuring.exception()  # waits for it
            self._measure(piece, -np.inf)
        self._end_piece(piece)

    def release(self) -> None:
        """Stop what runs beside, whether or not the recording has ended in order."""
        if self._search is not None:
            self._search.end()
        self._pieces[-1].puller.end()

    def lost(self) -> list[str]:
        """Losses, a sentence each."""
        losses = [str(one) for one in self.outages]
        n_in_outages = sum(one.n_samples or 0 for one in self.outages)
        n_lost = 0 if self._sequence is None else self._sequence.n_lost - n_in_outages
        if n_lost > 0:
            losses.append(
                f"{n_lost} samples of {self.name!r} never came, by their sequence numbers"
            )
        n_off = sum(piece.watch.n_off for piece in self._pieces)
        if n_off:
            losses.append(f"{n_off} samples of {self.name!r} bear stamps of another clock")
        n_unchecked = sum(
            piece.watch.n_unchecked for piece in self._pieces if not piece.inlet.same_host
        )
        if n_unchecked:
            losses.append(
                f"the clock of the sender of {self.name!r} could not be measured: {n_unchecked} "
                "stamps cannot be brought onto ours. Is UDP let through between the two machines?"
            )
        return losses

    def status(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        piece = self._pieces[-1]
        known = piece.has_offset
        return {
            "type": piece.inlet.description.type,
            "samples": sum(one.n_samples for one in self._pieces),
            "newest_s": piece.last_s,
            "clock_offset_s": piece.offset.current.offset_s if known else None,
            "clock_uncertainty_s": piece.offset.current.uncertainty_s if known else None,
            "pieces": len(self._pieces),
            "away": self._search is not None,
        }

    def _since_start(self, t_s: float) -> float:
        return t_s - self.t_start_s

    def _take(self, piece: _Piece) -> None:
        blocks = piece.puller.take()
        if not blocks:
            return
        what = piece.inlet.description
        for block in blocks:
            self._judge(piece, block)
        stamps = np.concatenate(
            [arrival_stamps(one, what.rate_hz) if self.by_arrival else one.stamps for one in blocks]
        )
        values = np.concatenate([block.values for block in blocks])
        self.write(xdf.frame(xdf.SAMPLES, xdf.samples(values, stamps, what.format), piece.number))
        piece.first_s = piece.first_s if piece.n_samples else float(stamps[0])
        piece.last_s = max(piece.last_s, float(stamps[-1]))
        piece.n_samples += len(stamps)
        piece.t_heard_s, piece.n_unanswered = blocks[-1].arrival_s, 0

    def _judge(self, piece: _Piece, block: PulledBlock) -> None:
        if self._sequence is not None:
            self._sequence.add(block.values, block.arrival_s)
        if self._search is None and self.outages and self.outages[-1].to_s is None:
            self._note_return(self.outages[-1], block)
        if self.by_arrival:
            return
        self._check_stamps(piece, block.stamps, block.arrival_s)

    def _check_stamps(self, piece: _Piece, stamps: Float64s, arrival_s: float) -> None:
        offset_s = piece.offset.current.offset_s if piece.has_offset else None
        if remark := piece.watch.add(stamps, arrival_s, offset_s):
            self.say(remark)

    def _note_return(self, outage: Outage, block: PulledBlock) -> None:
        outage.to_s = self._since_start(block.arrival_s)
        sequence = self._sequence
        if sequence is not None and sequence.is_there and not sequence.has_begun_anew:
            outage.n_samples = sequence.n_lost - self._n_lost_before
        self.say(str(outage))

    def _measure(self, piece: _Piece, now_s: float) -> None:
        """Write a clock measurement that is done, and begin the next when it is time."""
        if self.by_arrival:
            if not piece.has_offset:
                self._write_offset(piece, OffsetEstimate(now_s, 0.0, 0.0))
            return
        if piece.measuring is not None and piece.measuring.done():
            measured, piece.measuring = piece.measuring.result(), None
            if measured is not None:
                self._write_offset(piece, measured)
        if piece.measuring is None and now_s >= piece.t_offset_s + OFFSET_EVERY_S:
            piece.t_offset_s = now_s
            piece.measuring = self.pool.submit(piece.inlet.clock_offset, OFFSET_WITHIN_S)

    def _write_offset(self, piece: _Piece, measured: OffsetEstimate) -> None:
        piece.offset.add(measured)
        piece.has_offset = True
        content = xdf.clock_offset(measured.t_s, piece.offset.current.offset_s)
        self.write(xdf.frame(xdf.CLOCK_OFFSET, content, piece.number))
        if not self.by_arrival:
            self._check_stamps(piece, np.zeros(0), piece.t_heard_s)

    def _has_gone(self, piece: _Piece, now_s: float) -> bool:
        """Return True if a silent stream twice did not answer: a cable or a host is off."""
        if piece.asking is not None and piece.asking.done():
            piece.n_unanswered = 0 if piece.asking.result() else piece.n_unanswered + 1
            piece.asking = None
        if piece.asking is None and now_s > piece.t_heard_s + SILENT_S * (1 + piece.n_unanswered):
            piece.asking = self.pool.submit(piece.inlet.is_visible, ASK_WITHIN_S)
        return piece.n_unanswered >= 2

    def _end_piece(self, piece: _Piece) -> None:
        piece.has_ended = True
        piece.puller.end()
        self._take(piece)
        held = xdf.footer(piece.n_samples, piece.first_s, piece.last_s)
        self.write(xdf.frame(xdf.STREAM_FOOTER, held, piece.number))

    def _look_again(self, search: Search) -> None:
        """Go on with the stream that was found, or with the old one if it only was not seen."""
        self._remark(search)
        piece, inlet = self._pieces[-1], search.found()
        if not piece.has_ended:
            n_before = piece.n_samples
            self._take(piece)
            is_same = inlet is not None and inlet.description.uid == piece.inlet.description.uid
            if piece.n_samples > n_before or is_same:
                self._resume(piece, search, inlet)
                return
            if piece.puller.has_lost.is_set() or inlet is not None:
                self._end_piece(piece)
        if inlet is not None:
            self._search = None
            self.begin(inlet)

    def _resume(self, piece: _Piece, search: Search, inlet: Inlet | None) -> None:
        """A connection that still stands has lost nothing."""
        search.end()
        if inlet is not None:
            inlet.close()
        self._search, piece.n_unanswered, piece.t_heard_s = None, 0, self.clock.now()
        self.outages.pop()
        self.say(f"{self.name!r} is there again; its connection stood, and nothing is lost")

    def _remark(self, search: Search) -> None:
        while search.remarks:
            self.say(search.remarks.pop(0))
