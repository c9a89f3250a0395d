"""Failover: if the backend in service fails, the next one listed takes over within a second.

The spare is opened and held to the record ahead of need, beside the one in service. Once it is
needed, only the last seconds' bins must still run through its memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from export.backends.opening import OpenedBackend, open_backend
from export.bundle import DecoderBundle
from export.errors import ExportError
from service.errors import ServiceError
from service.loop.commands import LoopCommand
from service.loop.decode_loop import DecodeLoop, Report
from service.loop.decoder import Decoder
from service.loop.slots import DecoderSlot

N_SPARES = 3
"""For the decoders in service, in shadow and standing by."""


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
        loop: whose decoder's backend may fail.
        warm_up: returns a backend's slot that has run the last seconds' bins.
        report: called with (event, detail).
    """

    def __init__(
        self,
        choices: Sequence[str],
        loop: DecodeLoop,
        warm_up: Callable[[DecoderBundle, OpenedBackend], DecoderSlot],
        report: Report,
    ) -> None:
        self.refused: dict[str, str] = {}
        self._choices, self._loop = tuple(choices), loop
        self._warm_up, self._report = warm_up, report
        self._spares: dict[str, Spare] = {}
        self._in_use: dict[str, str] = {}
        self._told: Decoder | None = None

    @property
    def spare(self) -> str:
        """The backend that would take over from the one in service; "" where none would."""
        held = self._spares.get(self._loop.decoder.manifest.id)
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
        """Watch the loop from an own thread, until the process ends."""
        threading.Thread(target=self._watch, name="failover", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._loop.backend_failed.wait()
            self._loop.backend_failed.clear()
            try:
                self._take_over()
            except (ExportError, ServiceError) as error:
                self._report("fallback_refused", {"warning": str(error)})

    def _take_over(self) -> None:
        """Report the failure once per decoder, and put its spare in its place if there is one."""
        decoder = self._loop.decoder
        # A decoder without a spare fails in every beat: once is enough.
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
        slot = self._warm_up(spare.bundle, spare.opened)
        self._loop.commands.ask(LoopCommand("fell_back", slot))
        self.prepare(spare.bundle, spare.opened)
