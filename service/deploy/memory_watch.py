"""Memory that rots: decoders are checked all the time, and read anew from the disk if damaged.

A thread of its own sums a slice and sleeps, so that no beat waits for it. What is checked, and
what cannot be: docs/faults.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from export.backends.opening import OpenedBackend
from export.bundle import DecoderBundle, open_bundle
from export.errors import BackendError
from export.memory_check import SLICE_BYTES, MemoryCheck
from service.deploy.failover import Failover
from service.deploy.opening import open_within
from service.guard import Guard
from service.loop.commands import LoopCommand, RefusedError
from service.loop.decode_loop import DecodeLoop, Report
from service.loop.slots import DecoderSlot

PASS_EVERY_S = 0.5
"""From one pass over all bytes to the next; longer where they are many."""
RETRY_S = 5.0
"""After a decoder could not be read anew: the disk may be back by now."""
BYTES_AT_ONCE, PAUSE_S = 4 * SLICE_BYTES, 0.1


class MemoryWatch:
    """Checks the decoders in service, in shadow and standing by.

    Attributes:
        failure: why nothing is checked any more; "" while all is well.

    Args:
        loop: whose decoders.
        failover: knows where they lie, and takes over where one cannot be read anew.
        warm_up: returns a backend's slot that has run the last seconds' bins.
        report: called with (event, detail).
        open_most_s: longest time in which a backend is opened.
        signers: see `Deployer`.
    """

    def __init__(
        self,
        loop: DecodeLoop,
        failover: Failover,
        warm_up: Callable[[DecoderBundle, OpenedBackend], DecoderSlot],
        report: Report,
        open_most_s: float,
        signers: tuple[str, ...] = (),
    ) -> None:
        self._signers = signers
        self._loop, self._failover, self._warm_up = loop, failover, warm_up
        self._report, self._open_most_s = report, open_most_s
        self._stopping = threading.Event()
        self._tried: DecoderSlot | None = None
        self._t_tried_s = 0.0
        self.failure = ""

    def start(self) -> None:
        """Check from an own thread, until told to stop."""
        threading.Thread(target=self._run, name="memory", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end soon."""
        self._stopping.set()

    def report(self) -> dict[str, Any]:
        """Return what `status` tells: of the decoder in service, and how long damage may hide."""
        found = [slot.memory for slot in self._loop.slots.all if slot.memory is not None]
        own = self._loop.slots.active.memory
        return {
            "bytes": own.n_bytes if own else 0,
            "probe": own is not None and own.has_probe,
            "within_s": _pass_s(found),
        }

    def _run(self) -> None:
        with Guard(Exception, self._fail):
            while not self._stopping.is_set():
                t_begun_s = time.monotonic()
                self.look()
                self._stopping.wait(max(0.0, t_begun_s + PASS_EVERY_S - time.monotonic()))

    def _fail(self, error: Exception) -> None:
        self.failure = f"{type(error).__name__}: {error}"
        warning = f"memory is not checked any more: {self.failure}"
        self._report("memory_unchecked", {"warning": warning})

    def look(self) -> None:
        """Check all decoders once, and read the one in service anew if it is damaged."""
        for slot in self._loop.slots.all:
            self.check(slot)
        active = self._loop.slots.active
        is_due = active is not self._tried or time.monotonic() > self._t_tried_s + RETRY_S
        if active.damage and is_due:
            self._tried, self._t_tried_s = active, time.monotonic()
            self._reload(active)

    def check(self, slot: DecoderSlot) -> None:
        """Check a decoder once; what is damaged is `fault` from the next decode on."""
        if slot.memory is None or slot.damage:
            return
        n_bytes = 0
        for n in slot.memory.slices():
            n_bytes += n
            if n_bytes >= BYTES_AT_ONCE:
                n_bytes = 0
                self._stopping.wait(PAUSE_S)
        if not slot.memory.found:
            return
        slot.damage = slot.memory.found
        manifest, backend = slot.decoder.manifest, slot.decoder.backend
        detail = {
            "decoder_id": manifest.name, "checksum": manifest.id, "backend": backend.name,
            "what": slot.damage, "in_service": slot is self._loop.slots.active,
            "warning": f"memory of {manifest.name!r} is damaged: {slot.damage} changed since it "
            "was loaded; if this happens again, have the machine's memory tested",
        }  # fmt: skip
        self._report("memory_damaged", detail)

    def _reload(self, slot: DecoderSlot) -> None:
        """Read the decoder in service anew from the disk, and put that into its place."""
        id_ = slot.decoder.manifest.id
        with Guard(Exception, partial(self._give_up, slot)):
            path, choice = self._failover.choice_of(id_)
            bundle = open_bundle(path, self._signers)
            if bundle.manifest.id != id_:
                raise RefusedError(f"{path} holds another decoder by now")
            opened = open_within(bundle, choice, (), self._open_most_s)
            self._loop.commands.ask(LoopCommand("reloaded", self._warm_up(bundle, opened)))

    def _give_up(self, slot: DecoderSlot, error: Exception) -> None:
        """Leave it to the failover, which tells, and takes over if it can."""
        slot.decoder.failure = BackendError(f"damaged in memory, and not reloaded: {error}")
        self._loop.backend_failed.set()


def _pass_s(checks: list[MemoryCheck]) -> float:
    n_pauses = sum(check.n_bytes // BYTES_AT_ONCE for check in checks)
    return PASS_EVERY_S + n_pauses * PAUSE_S
