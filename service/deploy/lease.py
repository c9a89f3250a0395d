"""A lease on a decoder: whoever put it into service must say again and again that it is there.

A calibration that drives the subject exchanges tables every few seconds. If it is killed, nobody
judges any more what its newest step does, so the decoder from before the first of them takes over.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from service.guard import Guard
from service.loop.commands import LoopCommand
from service.loop.decode_loop import DecodeLoop, Report

KEEP_AT_MOST_S = 600.0


class Lease:
    """Rolls back where the client that exchanged the tables is not heard of any more.

    Args:
        loop: whose decoder is rolled back.
        report: called with (event, detail).
    """

    def __init__(self, loop: DecodeLoop, report: Report) -> None:
        self._loop, self._report = loop, report
        self._changed = threading.Condition()
        self._id, self._keep_s, self._t_end_s = "", 0.0, 0.0
        self._is_over = False

    def start(self) -> None:
        """Watch from an own thread, until told to stop."""
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end soon."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def begin(self, id_: str, keep_s: float) -> None:
        """From now on the decoder with this id is held for so long; for 0 s as any other is."""
        with self._changed:
            self._id, self._keep_s = (id_, keep_s) if keep_s else ("", 0.0)
            self._t_end_s = time.monotonic() + keep_s
            self._changed.notify()

    def renew(self) -> bool:
        """Hold it for as long again; False where nothing is held."""
        with self._changed:
            self._t_end_s = time.monotonic() + self._keep_s
            return bool(self._id)

    def release(self) -> bool:
        """Let it stay, as any other; False where nothing was held."""
        with self._changed:
            held, self._id = bool(self._id), ""
            return held

    def _watch(self) -> None:
        while True:
            with self._changed:
                left_s = self._t_end_s - time.monotonic() if self._id else None
                if not self._is_over and (left_s is None or left_s > 0.0):
                    self._changed.wait(left_s)
                    continue
                if self._is_over:
                    return
                id_, keep_s, self._id = self._id, self._keep_s, ""
            # Whatever it is: the next lease must find somebody who watches.
            with Guard(Exception, partial(self._fail, keep_s)):
                self._end(id_, keep_s)

    def _end(self, id_: str, keep_s: float) -> None:
        if self._loop.decoder.manifest.id != id_:
            return  # another one took over, and this one is held no more
        self._tell(keep_s, "the decoder of before takes over")
        self._loop.commands.ask(LoopCommand("rollback"))

    def _fail(self, keep_s: float, error: Exception) -> None:
        self._tell(keep_s, f"the decoder of before cannot take over: {error}")

    def _tell(self, keep_s: float, then: str) -> None:
        why = f"whoever exchanged the tables was not heard of for {keep_s:g} s: {then}"
        self._report("driver_gone", {"warning": why})
