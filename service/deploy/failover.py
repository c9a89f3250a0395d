"""Failover: if the backend in service fails, the next one listed takes over within a second.

The spare is opened and held to the record ahead of need, beside the one in service. Once it is
needed, only the last seconds' bins must still run through its memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.backends.opening import OpenedBackend
from export.bundle import DecoderBundle
from export.choice.ranking import Ranking
from export.errors import ExportError
from service.deploy.opening import open_within
from service.guard import Guard
from service.loop.commands import LoopCommand
from service.loop.decode_loop import DecodeLoop, Report
from service.loop.decoder import Decoder
from service.loop.slots import DecoderSlot

RETRY_S = 5.0
"""After a spare was refused."""
N_SPARES = 3
"""For the decoders in service, in shadow and standing by."""


@dataclass(frozen=True, slots=True)
class Spare:
    """A backend that passed the gate for a bundle and waits.

    Attributes:
        bundle: the decoder.
        opened: the backend; None where none is to take over, or none could be opened.
        warning: why none could be opened; "" else.
    """

    bundle: DecoderBundle
    opened: OpenedBackend | None
    warning: str = ""


def open_spare(bundle: DecoderBundle, opened: OpenedBackend, most_s: float) -> Spare:
    """Open the next backend for a bundle that `opened` runs, within `most_s` seconds."""
    after = opened.next_choices
    try:
        return Spare(bundle, open_within(bundle, after[0], after[1:], most_s) if after else None)
    except ExportError as error:
        return Spare(bundle, None, f"no fallback can take over: {error}")


def tell_choice(opened: OpenedBackend, report: Report) -> None:
    """Report which backend `auto` took, and by which times."""
    if opened.ranking is not None:
        report("backend_chosen", {"backend": opened.choice} | opened.ranking.as_dict())


class Failover:
    """Keeps a spare backend for each decoder, and puts it into service when that is needed.

    Attributes:
        refused: backends that could not be opened or failed, and why, by their name in the config.
        loaded: names of the backends that this process has opened.

    Args:
        loop: whose decoder's backend may fail.
        warm_up: returns a backend's slot that has run the last seconds' bins.
        report: called with (event, detail).
        open_most_s: longest time in which a backend is opened.
    """

    def __init__(
        self,
        loop: DecodeLoop,
        warm_up: Callable[[DecoderBundle, OpenedBackend], DecoderSlot],
        report: Report,
        open_most_s: float,
    ) -> None:
        self._open_most_s = open_most_s
        self.refused: dict[str, str] = {}
        self.loaded: set[str] = set()
        self._loop = loop
        self._warm_up, self._report = warm_up, report
        self._spares: dict[str, Spare] = {}
        self._in_use: dict[str, str] = {}
        self._paths: dict[str, Path] = {}
        self._rankings: dict[str, Ranking] = {}
        self._told: Decoder | None = None
        self._t_tried_s = float("-inf")

    @property
    def spare(self) -> str:
        """The backend that would take over from the one in service; "" where none would."""
        held = self._spares.get(self._loop.decoder.manifest.id)
        return held.opened.choice if held and held.opened else ""

    @property
    def ranking(self) -> Ranking | None:
        """The times by which `auto` chose for the decoder in service; None where it did not."""
        return self._rankings.get(self._loop.decoder.manifest.id)

    def choice_of(self, id_: str) -> tuple[Path, str]:
        """Return where the bundle with this id lies, and the backend that runs it."""
        return self._paths[id_], self._in_use[id_]

    def paths_in_use(self) -> list[Path]:
        """Return where the decoders lie that run: one that is damaged is read anew from there."""
        ids = {slot.decoder.manifest.id for slot in self._loop.slots.all}
        return [path for id_, path in list(self._paths.items()) if id_ in ids]

    def take_spare(self, id_: str) -> OpenedBackend | None:
        """Take out the spare of a decoder that runs no more; None where it has none."""
        spare = self._spares.pop(id_, None)
        return spare.opened if spare else None

    def prepare(
        self, bundle: DecoderBundle, opened: OpenedBackend, spare: Spare | None = None
    ) -> None:
        """Keep a spare for a bundle that `opened` runs, opened now if none is given.

        Any thread may.
        """
        spare = spare or open_spare(bundle, opened, self._open_most_s)
        key = bundle.manifest.id
        self._in_use[key] = opened.choice
        # What `current` points to may be another one by the time that it is read again.
        self._paths[key] = bundle.path.resolve()
        if opened.ranking is not None:
            self._rankings[key] = opened.ranking
        for one in (opened, spare.opened):
            if one is not None:
                self.refused |= {attempt.name: attempt.reason for attempt in one.tried}
                self.loaded.add(one.choice)
        if spare.warning:
            self._report("fallback_refused", {"warning": spare.warning})
        if spare.opened is None:
            return
        self._spares[key] = spare
        for old in list(self._spares)[:-N_SPARES]:
            self._spares.pop(old, None)

    def start(self) -> None:
        """Watch the loop from an own thread, until the process ends."""
        threading.Thread(target=self._watch, name="failover", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._loop.backend_failed.wait()
            self._loop.backend_failed.clear()
            # Whatever it is: the next failure must find somebody who watches.
            with Guard(Exception, self._refuse):
                self._take_over()

    def _refuse(self, error: Exception) -> None:
        self._report("fallback_refused", {"warning": str(error) or type(error).__name__})

    def _take_over(self) -> None:
        """Report the failure once per decoder, and put its spare in its place if there is one.

        A spare that is refused is tried again while beats fail: there may be no other.
        """
        decoder = self._loop.decoder
        if decoder.failure is None:
            return
        key = decoder.manifest.id
        spare = self._spares.get(key)
        taking_over = spare.opened if spare else None
        if decoder is not self._told:  # it fails in every beat: once is enough
            self._told, self._t_tried_s = decoder, float("-inf")
            self._tell(decoder, taking_over)
        if spare is None or taking_over is None or time.monotonic() < self._t_tried_s + RETRY_S:
            return
        self._t_tried_s = time.monotonic()
        slot = self._warm_up(spare.bundle, taking_over)
        self._loop.commands.ask(LoopCommand("fell_back", slot))
        self._spares.pop(key, None)
        self.prepare(spare.bundle, taking_over)

    def _tell(self, decoder: Decoder, taking_over: OpenedBackend | None) -> None:
        key = decoder.manifest.id
        error = str(decoder.failure)
        self.refused[self._in_use.get(key, decoder.backend.name)] = error
        self._report(
            "backend_failed",
            {
                "backend": decoder.backend.name,
                "precision": decoder.backend.precision,
                "fallback": taking_over.choice if taking_over else "",
                "warning": error,
            },
        )
