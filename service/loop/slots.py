"""Decoder slots: one in service, perhaps one in shadow, and the previous one standing by.

A new decoder is warmed up on the latest bins by the thread that deploys it. It joins at a beat's
boundary, runs after each decode is out, and takes over at a boundary: no beat waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from export.backends.opening import OpenedBackend
from export.bundle import GRAPH, DecoderBundle
from export.memory_check import MemoryCheck
from service.loop.decoder import Decoder, Raw
from service.loop.journal import Journal
from service.loop.shaping import Shaper, Shaping
from service.loop.validity import ValidityJudge
from streams.messages import SpikeBatch
from streams.spikes.kernels.choose import Kernels

KEPT_S = 4.0
CATCH_UP_BINS = 8
RANGE_OVER_S = 10.0
RANGE_SHARE = 0.1

Change = Literal[
    "join", "promote", "dismiss", "rollback", "fell_back", "reloaded", "tables_swapped"
]


class DecoderSlot:
    """A decoder with a judge and a shaper for its decodes.

    Attributes:
        damage: what of its memory is damaged; "" while nothing is.
        left_bounds: it was taken out of service because its decodes left their bounds.

    Args:
        decoder: runs the bins.
        judge: judges its decodes.
        shaper: shapes their values.
        memory: looks for damage; None where nothing can be looked at.
        tables_only: it differs from the decoder before it in its tables alone.
    """

    def __init__(
        self,
        decoder: Decoder,
        judge: ValidityJudge,
        shaper: Shaper,
        memory: MemoryCheck | None = None,
        *,
        tables_only: bool = False,
    ) -> None:
        self.decoder, self.judge, self.shaper, self.memory = decoder, judge, shaper, memory
        self.tables_only = tables_only
        self.damage = ""
        self.left_bounds = False
        self.seq = 0
        self.reason = "context_short"


def make_slot(
    bundle: DecoderBundle,
    opened: OpenedBackend,
    source_keys: list[str],
    shaper: Shaper,
    *,
    token_cap: int | None,
    keep_alive_every_s: float,
    kernels: Kernels,
    journal: Journal,
    tables_only: bool = False,
) -> DecoderSlot:
    """Return a slot for an opened bundle.

    Args:
        bundle: the decoder.
        opened: its backend.
        source_keys: the source's growing key list.
        shaper: shapes its values.
        token_cap: tokens per bin at most; None for no cap.
        keep_alive_every_s: the source's.
        kernels: functions that make its tokens.
        journal: is told of it, and of what its memory depends on.
        tables_only: see `DecoderSlot`.
    """
    manifest = bundle.manifest
    decoder = Decoder(
        manifest, opened.backend, bundle.row_of_key, source_keys, token_cap, opened.step_p99_s,
        kernels, journal,
    )  # fmt: skip
    journal.opened(
        decoder.number,
        {
            "bundle": str(bundle.path.absolute()),
            "name": manifest.name,
            "checksum": manifest.id,
            "choice": opened.choice,
            "backend": opened.backend.name,
            "precision": opened.backend.precision,
            "library": opened.backend.library,
        },
    )
    judge = ValidityJudge(
        manifest.context_s, manifest.stale_after_s, keep_alive_every_s, manifest.hop_s
    )
    if opened.memory is not None:
        opened.memory.watch(lambda: {"row_of": decoder.row_of})
    return DecoderSlot(decoder, judge, shaper, opened.memory, tables_only=tables_only)


class DecoderSlots:
    """The slots; owned by the loop's thread.

    Attributes:
        active: in service.
        shadow: on trial; None if there is none.
        standby: in service before; None if nothing was swapped.
        recent: the latest bins, for decoders that have not run them yet.
        known: (n_source_units,) bool, units that any decoder knows.
        all_known: True if the one in service knows all of them.

    Args:
        active: the decoder in service.
        hop_us: between beats.
        on_change: called with each change, the slot that it is about, and more to tell.
    """

    def __init__(self, active: DecoderSlot, hop_us: int, on_change: Callable[..., None]) -> None:
        self.active = active
        self.shadow: DecoderSlot | None = None
        self.standby: DecoderSlot | None = None
        self._on_change = on_change
        n_kept = round(KEPT_S * 1e6 / hop_us)
        self.recent: deque[tuple[int, SpikeBatch]] = deque(maxlen=n_kept)
        self._out_of_range: deque[bool] = deque(maxlen=round(RANGE_OVER_S * 1e6 / hop_us))
        self._n_within = self._n_told_after = round(RANGE_OVER_S * 1e6 / hop_us)
        self.known = active.decoder.known
        self.all_known = True

    @property
    def behind(self) -> list[DecoderSlot]:
        """The decoders that run after the decode is out."""
        return [slot for slot in (self.shadow, self.standby) if slot is not None]

    @property
    def all(self) -> list[DecoderSlot]:
        """Every decoder that runs."""
        return [self.active, *self.behind]

    @property
    def shadow_number(self) -> int:
        """Number of the decoder in shadow; 0 where there is none."""
        return 0 if self.shadow is None else self.shadow.decoder.number

    def follow_source(self) -> None:
        """Take in the source's new keys."""
        if any([slot.decoder.follow_source() for slot in self.all]):
            self._merge_known()

    def remember(self, k: int, spikes: SpikeBatch) -> None:
        """Keep a cut bin for the decoders behind, and for those to come."""
        self.recent.append((k, spikes))

    def missed(self, slot: DecoderSlot) -> Iterator[tuple[int, SpikeBatch]]:
        """Yield the bins that a decoder has not run yet, oldest first, a few at a time."""
        newest_k = self.recent[-1][0] if self.recent else 0
        n_behind = min(newest_k - slot.decoder.last_k, len(self.recent))
        for i in range(n_behind, max(0, n_behind - CATCH_UP_BINS), -1):
            yield self.recent[-i]

    def forget(self, k: int) -> None:
        """Begin every decoder's memory anew after beat k."""
        self.recent.clear()
        for slot in self.all:
            slot.decoder.forget(k)
            slot.decoder.skip_to(k)

    def shape(self, shaping: Shaping) -> None:
        """Let every decoder's values be shaped like this from now on."""
        for slot in self.all:
            slot.shaper.use(shaping)

    def watch_range(self, raw: Raw | None) -> None:
        """Tell of a decode beyond the manifest's bounds, and roll back where these are many.

        One that is `ok` is told, the next after 10 s without. Many is over a tenth of 10 s. Nobody
        is rolled back to that was itself taken out for its bounds: two would take turns.
        """
        if raw is None:
            return
        outside = self.active.decoder.outside(raw)
        if outside and self.active.reason == "" and self._n_within >= self._n_told_after:
            self._on_change(
                "out_of_range", self.active, output=outside, value=raw[outside].tolist()
            )
        self._n_within = 0 if outside else self._n_within + 1
        if self.standby is None or self.standby.left_bounds:
            return
        self._out_of_range.append(outside != "")
        limit = RANGE_SHARE * (self._out_of_range.maxlen or 0)
        if sum(self._out_of_range) > limit:
            self.active.left_bounds = True
            self._roll_back()
            self._on_change("rolled_back_out_of_range", self.active)

    def carry_out(self, change: Change, slot: DecoderSlot | None) -> str | None:
        """Make a change.

        Returns:
            "" once it is made; None if it must wait; otherwise the reason why it is refused.
        """
        # Its memory would lack the bins that it has not run.
        if change == "promote" and self._is_catching_up:
            return None
        error = self._change(change, slot)
        if error:
            return error
        self._merge_known()
        told = self.shadow or self.active
        if change in ("fell_back", "reloaded", "tables_swapped"):
            told = self.active
        self._on_change(change, told)
        return ""

    def _change(self, change: Change, slot: DecoderSlot | None) -> str:
        if change == "join":
            self.shadow = slot
        elif change == "dismiss":
            self.shadow = None
        elif change == "fell_back" or change == "reloaded":
            in_service = self.active.decoder.manifest.id
            if slot is None or slot.decoder.manifest.id != in_service:
                return "another decoder took over meanwhile"
            slot.shaper.continue_from(self.active.shaper)
            slot.tables_only = self.active.tables_only
            self.active = slot  # the failed one does not stand by: a rollback must not find it
        elif change == "tables_swapped":
            return self._swap_tables(slot)
        elif change == "promote":
            if self.shadow is None:
                return "no decoder is in shadow"
            self._put_in_service(self.shadow, standby=self.active)
            self.shadow = None
        elif self.standby is None:
            return "no decoder stands by: nothing was swapped in this run"
        else:
            self._roll_back()
        return ""

    def _swap_tables(self, slot: DecoderSlot | None) -> str:
        if slot is None or _network_of(slot) != _network_of(self.active):
            return "a decoder of another network took over meanwhile"
        # However often tables change, the decoder from before them stands by: the floor.
        floor = self.active if not self.active.tables_only else self.standby or self.active
        self._put_in_service(slot, standby=floor)
        return ""

    @property
    def _is_catching_up(self) -> bool:
        newest_k = self.recent[-1][0] if self.recent else 0
        return self.shadow is not None and self.shadow.decoder.last_k < newest_k

    def _roll_back(self) -> None:
        if self.standby is not None:
            self._put_in_service(self.standby, standby=self.active)

    def _put_in_service(self, slot: DecoderSlot, standby: DecoderSlot) -> None:
        slot.shaper.continue_from(self.active.shaper)
        self.active, self.standby = slot, standby
        slot.left_bounds = False
        self._out_of_range.clear()  # the other decoder's
        self._n_within = self._n_told_after

    def _merge_known(self) -> None:
        # The source's list may grow meanwhile: a decoder that follows it later knows more keys.
        for slot in self.all:
            slot.decoder.follow_source()
        known = self.active.decoder.known
        self.known = known
        for slot in self.behind:
            self.known = self.known | slot.decoder.known[: len(known)]
        self.all_known = bool(np.array_equal(self.known, known))


def _network_of(slot: DecoderSlot) -> str:
    return slot.decoder.manifest.files[GRAPH].sha256
