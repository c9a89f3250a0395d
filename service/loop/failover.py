"""When the backend in service fails, the next one listed takes over, warmed up, within a second.

It is opened and held to the record ahead of need, beside the one in service; what is left to do
when it is needed is to run the bins of the last seconds through its memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from export.backends import OpenedBackend, open_backend
from export.bundle import DecoderBundle
from export.errors import ExportError
from service.errors import ServiceError
from service.loop.beat import Beat
from service.loop.decoder import Decoder, Seat
from service.loop.lineup import Request

N_SPARES = 3
"""Of the decoders in service, in shadow and standing by."""


@dataclass(frozen=True, slots=True)
class Spare:
    """A backend that passed the gate for a bundle and waits."""

    bundle: DecoderBundle
    opened: OpenedBackend


class Failover:
    """Keeps a spare backend for each decoder, and puts it into service when that is needed.

    Attributes:
        refused: backends that could not be opened or failed, and why, by their name in the config.

    Args:
        choices: backends as the config lists them: the one to use, then the fallbacks.
        beat: whose decoder's backend may fail.
        warm_up: makes a seat of a backend that has run the bins of the last seconds.
        change: asks the beat for a change, and waits until it is carried out.
        report: called with (event, detail).
    """

    def __init__(
        self,
        choices: Sequence[str],
        beat: Beat,
        warm_up: Callable[[DecoderBundle, OpenedBackend], Seat],
        change: Callable[[Request], None],
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.refused: dict[str, str] = {}
        self._choices, self._beat = tuple(choices), beat
        self._warm_up, self._change, self._report = warm_up, change, report
        self._spares: dict[str, Spare] = {}
        self._in_use: dict[str, str] = {}
        self._told: Decoder | None = None

    @property
    def spare(self) -> str:
        """The backend that would take over from the one in service; "" where none would."""
        held = self._spares.get(self._beat.decoder.manifest.id)
        return held.opened.choice if held else ""

    def prepare(self, bundle: DecoderBundle, opened: OpenedBackend) -> None:
        """Open the next backend in the list for a bundle that `opened` runs; any thread may."""
        self.refused |= {one.name: one.reason for one in opened.tried}
        left = self._choices[self._choices.index(opened.choice) + 1 :]
        key = bundle.manifest.id
        self._in_use[key] = opened.choice
        if not left:
            return
        try:
            spare = open_backend(bundle, left[0], left[1:])
        except ExportError as error:
            self._report("fallback_refused", {"warning": f"no fallback can take over: {error}"})
            return
        self.refused |= {one.name: one.reason for one in spare.tried}
        self._spares[key] = Spare(bundle, spare)
        for old in list(self._spares)[:-N_SPARES]:
            self._spares.pop(old, None)

    def start(self) -> None:
        """Watch the beat from a thread of its own, until the process ends."""
        threading.Thread(target=self._watch, name="failover", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._beat.backend_failed.wait()
            self._beat.backend_failed.clear()
            try:
                self._take_over()
            except (ExportError, ServiceError) as error:
                self._report("fallback_refused", {"warning": str(error)})

    def _take_over(self) -> None:
        """Tell of the failure once a decoder, and put its spare in its place if there is one."""
        decoder = self._beat.decoder
        if decoder.failure is None or decoder is self._told:
            return
        self._told = decoder
        key = decoder.manifest.id
        spare = self._spares.pop(key, None)
        error = str(decoder.failure)
        self.refused[self._in_use.get(key, decoder.backend.name)] = error
        self._report(
            "backend_failed",
            {
                "backend": decoder.backend.name,
                "precision": decoder.backend.precision,
                "fallback": spare.opened.choice if spare else "",
                "warning": error,
            },
        )
        if spare is None:
            return
        self._change(Request("fell_back", self._warm_up(spare.bundle, spare.opened)))
        self.prepare(spare.bundle, spare.opened)
