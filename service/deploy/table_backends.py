"""Backends for decoders that differ in their tables alone: opened once, then they take turns.

While one decodes, the next tables go into another, which is held to their record beside the beat.
What changes at the beat is a reference.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from export.backends.opening import OpenedBackend, require_parity
from export.bundle import GRAPH, DecoderBundle
from export.errors import BundleError, ExportError
from export.memory_check import MemoryCheck
from service.deploy.failover import Failover, Spare, open_spare
from service.deploy.opening import open_within
from service.loop.commands import RefusedError
from service.loop.decode_loop import DecodeLoop
from service.loop.slots import DecoderSlot


@dataclass(frozen=True, slots=True)
class _Kept:
    """A backend and the slot that it runs in; one that was opened ahead has its own spare yet."""

    slot: DecoderSlot | None
    opened: OpenedBackend
    network: str
    spare: OpenedBackend | None = None


class TableBackends:
    """Opens backends for tables; used by the thread that deploys, one deployment at a time.

    Args:
        loop: whose decoder changes.
        failover: knows what runs the decoder in service, and keeps spares.
        open_most_s: longest time in which a backend is opened.
    """

    def __init__(self, loop: DecodeLoop, failover: Failover, open_most_s: float) -> None:
        self._loop, self._failover, self._open_most_s = loop, failover, open_most_s
        self._kept: list[_Kept] = []

    def open(self, bundle: DecoderBundle) -> OpenedBackend:
        """Return a backend that has the bundle's tables and reproduces its record.

        Raises:
            RefusedError: the decoder in service is of another network.
            BackendUnavailable, BundleError: none can be opened, or it disagrees with the record.
        """
        manifest = self._loop.decoder.manifest
        if bundle.graph_sha256 != manifest.files[GRAPH].sha256:
            raise RefusedError(
                f"its network is not that of {manifest.name!r}, which is in service: tables alone "
                "cannot be exchanged. Swap it without `tables`"
            )
        _, choice = self._failover.choice_of(manifest.id)
        retired = self._take_retired(network_of(bundle), choice)
        if retired is not None:
            try:
                opened = with_tables(retired.opened, bundle)
            except BundleError:  # made for fewer units than there are by now
                retired = None
        if retired is None:
            opened = self._opened(bundle, choice)
            self._failover.prepare(bundle, opened)
            return opened
        spare = retired.spare or self._spare_of(retired.slot)
        held = _spare_with_tables(spare, bundle) if spare else None
        self._failover.prepare(bundle, opened, held)
        return opened

    def _spare_of(self, slot: DecoderSlot | None) -> OpenedBackend | None:
        """Take out a retired decoder's spare; None where the same decoder runs in another slot."""
        ids = [one.decoder.manifest.id for one in self._loop.slots.all]
        if slot is None or slot.decoder.manifest.id in ids:
            return None
        return self._failover.take_spare(slot.decoder.manifest.id)

    def keep(self, slot: DecoderSlot, bundle: DecoderBundle, opened: OpenedBackend) -> None:
        """Note what runs in a slot; once the slot has retired, it can have other tables."""
        self._kept.append(_Kept(slot, opened, network_of(bundle)))

    def open_ahead(self, bundle: DecoderBundle) -> None:
        """Open what the next tables will want, where nothing is idle.

        Raises:
            BackendUnavailable, BundleError: see `open`.
        """
        running, network = self._loop.slots.all, network_of(bundle)
        if any(one.slot not in running and one.network == network for one in self._kept):
            return
        opened = self._opened(bundle, self._failover.choice_of(bundle.manifest.id)[1])
        spare = open_spare(bundle, opened, self._open_most_s)
        self._kept.append(_Kept(None, opened, network, spare.opened))

    def _opened(self, bundle: DecoderBundle, choice: str) -> OpenedBackend:
        """Open the backend that the decoder in service has; its spare is of the same kind, too."""
        after = (self._failover.spare,) if self._failover.spare else ()
        opened = open_within(bundle, choice, (), self._open_most_s)
        return replace(opened, next_choices=after)

    def _take_retired(self, network: str, choice: str) -> _Kept | None:
        """Take out a backend whose slot runs no more; those that failed are let go."""
        running = self._loop.slots.all
        idle = [one for one in self._kept if one.slot not in running]
        usable = [
            one
            for one in idle
            if one.network == network
            and one.opened.choice == choice
            and (one.slot is None or (one.slot.decoder.failure is None and not one.slot.damage))
        ]
        taken = usable[0] if usable else None
        left = [one for one in usable if one is not taken]
        self._kept = [one for one in self._kept if one.slot in running] + left
        return taken


def network_of(bundle: DecoderBundle) -> str:
    """Return a checksum of all that a backend takes from a bundle, but for its tables."""
    found = hashlib.sha256(bundle.graph_sha256.encode())
    found.update(json.dumps(bundle.manifest.training.get("config"), sort_keys=True).encode())
    for name, weights in sorted(bundle.weights().items()):
        if name.startswith("decoder."):
            found.update(name.encode())
            found.update(weights.data)
    return found.hexdigest()


def with_tables(opened: OpenedBackend, bundle: DecoderBundle) -> OpenedBackend:
    """Give an idle backend other tables, and hold it to their record; its memory is zero then.

    Raises:
        BundleError: they do not fit, or it disagrees with the record.
    """
    backend = opened.backend
    backend.set_tables(bundle.tables)
    error = require_parity(bundle, backend)
    backend.reset()
    memory = MemoryCheck(backend, bundle.parity)
    return replace(opened, parity_error=error, memory=memory)


def _spare_with_tables(spare: OpenedBackend, bundle: DecoderBundle) -> Spare:
    try:
        return Spare(bundle, with_tables(spare, bundle))
    except ExportError as error:
        return Spare(bundle, None, f"no fallback can take over: {error}")
