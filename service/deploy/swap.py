"""Swap decoders: load one, hold it to its record, warm it up, run it in shadow, promote it.

Runs in its own thread beside the loop. A bundle that fails is refused with the reason, and the
decoder in service goes on.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from export.backends.opening import OpenedBackend
from export.bundle import DecoderBundle, open_bundle
from export.errors import ExportError
from service.deploy.failover import Failover, tell_choice
from service.deploy.lease import Lease
from service.deploy.memory_watch import MemoryWatch
from service.deploy.opening import open_within
from service.deploy.table_backends import TableBackends
from service.errors import ServiceError
from service.guard import Guard
from service.loop.commands import LoopCommand, RefusedError
from service.loop.decode_loop import DecodeLoop, Report
from service.loop.slots import DecoderSlot, make_slot
from service.loop.validity import UNKNOWN_SHARE


@dataclass(slots=True)
class Deployment:
    """One deployment's progress.

    Attributes:
        path: the bundle's.
        shadow_s: time in shadow before it takes over.
        hold: it stays in shadow until `promote`.
        tables: only its tables are exchanged, without shadow; refused for another network.
        keep_s: it goes out of service where nobody says `keep` for so long; 0: it stays.
        stages: those reached: `received`, `loaded`, `parity`, `shadow`, `active`.
        refused: the reason why it was refused; "" if it was not.
        over: nothing is still to come.
    """

    path: Path
    shadow_s: float = 0.0
    hold: bool = False
    tables: bool = False
    keep_s: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=lambda: [{"stage": "received"}])
    refused: str = ""
    over: bool = False

    def reach(self, stage: str, **detail: Any) -> None:
        """Note a stage."""
        self.stages.append({"stage": stage, **detail})

    def as_dict(self) -> dict[str, Any]:
        """Return it as a reply's result."""
        # Read first: the thread that carries it through sets it last.
        over = self.over
        return {
            "bundle": str(self.path),
            "stages": list(self.stages),
            "refused": self.refused,
            "over": over,
        }


class Deployer:
    """Carries out deployments, one at a time.

    Args:
        loop: whose decoder changes.
        source_keys: the source's growing key list.
        report: called with (event, detail).
        backends: as the config lists them: the one to use, or `auto`, then the fallbacks.
        token_cap: tokens per bin at most; None for no cap.
        keep_alive_every_s: the source's.
        open_most_s: longest time in which a backend is opened.
        signers: public keys, one of which must have signed a bundle; () where none needs to.
    """

    def __init__(
        self,
        loop: DecodeLoop,
        source_keys: list[str],
        report: Report,
        *,
        backends: tuple[str, ...],
        token_cap: int | None,
        keep_alive_every_s: float,
        open_most_s: float,
        signers: tuple[str, ...] = (),
    ) -> None:
        self._signers = signers
        self._loop, self._source_keys, self._report = loop, source_keys, report
        self._backends, self._token_cap = backends, token_cap
        self._keep_alive_every_s = keep_alive_every_s
        self._open_most_s = open_most_s
        self._stopping = threading.Event()
        self.latest: Deployment | None = None
        self.failover = Failover(loop, self.warmed_up, report, open_most_s)
        self.memory = MemoryWatch(loop, self.failover, self.warmed_up, report, open_most_s, signers)
        self._tables = TableBackends(loop, self.failover, open_most_s)
        self.lease = Lease(loop, report)

    def watch(self) -> None:
        """Look after the decoders there are, each part from a thread of its own."""
        for part in (self.failover, self.memory, self.lease):
            part.start()

    def start(self, deployment: Deployment) -> None:
        """Begin; returns at once.

        Raises:
            RefusedError: another deployment is under way.
        """
        if self.latest is not None and not self.latest.over:
            raise RefusedError(f"{self.latest.path} is being deployed; wait for it to end")
        self.latest = deployment
        threading.Thread(
            target=self._deploy, args=(deployment,), name="deploy", daemon=True
        ).start()

    def stop(self) -> None:
        """Let a deployment under way end early, and the threads that watch soon."""
        self._stopping.set()
        self.memory.stop()
        self.lease.stop()

    def _deploy(self, deployment: Deployment) -> None:
        # Whatever a bundle makes libraries raise, the decoder in service stays.
        with Guard(Exception, partial(self._refuse, deployment)):
            self._carry_through(deployment)
        deployment.over = True

    def _refuse(self, deployment: Deployment, error: Exception) -> None:
        why = str(error)
        if not isinstance(error, ExportError | ServiceError):
            why = f"it cannot be used: {type(error).__name__}: {error}"
        deployment.refused = why
        self._report("refused", {"bundle": str(deployment.path), "warning": why})

    def _carry_through(self, deployment: Deployment) -> None:
        bundle = open_bundle(deployment.path, self._signers)
        deployment.reach("loaded", id=bundle.manifest.id, name=bundle.manifest.name)
        self._require_fit(bundle)  # before the backend is opened, which takes seconds
        if deployment.tables:
            self._exchange_tables(deployment, bundle)
            return
        name, *fallback = self._backends
        opened = open_within(bundle, name, fallback, self._open_most_s, self.failover.loaded)
        tell_choice(opened, self._report)
        deployment.reach(
            "parity", error=opened.parity_error, backend=opened.backend.name,
            step_p99_ms=opened.step_p99_s * 1e3,
        )  # fmt: skip
        self.failover.prepare(bundle, opened)
        slot, commands = self.warmed_up(bundle, opened), self._loop.commands
        commands.ask(LoopCommand("join", slot))
        with ExitStack() as undo:
            undo.callback(commands.ask, LoopCommand("dismiss"))
            self._require_lead(bundle)  # from the join on `shape` holds it against this one, too
            deployment.reach("shadow")
            if not deployment.hold:
                self._stopping.wait(deployment.shadow_s)
                if slot.reason not in ("", "paused", "context_short"):
                    raise RefusedError(f"in shadow its decodes were not ok: {slot.reason}")
                commands.ask(LoopCommand("promote"))
            undo.pop_all()
        if not deployment.hold:
            deployment.reach("active")

    def _exchange_tables(self, deployment: Deployment, bundle: DecoderBundle) -> None:
        """Prepare everything beside the beat, which then takes another decoder object."""
        opened = self._tables.open(bundle)
        deployment.reach("parity", error=opened.parity_error, backend=opened.backend.name)
        slot = self.warmed_up(bundle, opened, tables_only=True)
        self._tables.keep(slot, bundle, opened)
        self._loop.commands.ask(LoopCommand("tables_swapped", slot))
        deployment.reach("active")
        try:
            self._tables.open_ahead(bundle)
        finally:
            # Opening may take long, and whoever waits for its end says `keep` only then.
            self.lease.begin(bundle.manifest.id, deployment.keep_s)

    def _require_fit(self, bundle: DecoderBundle) -> None:
        new, now = bundle.manifest, self._loop.decoder.manifest
        for what, ours, theirs in (
            ("hop", now.hop_s, new.hop_s),
            ("bin", now.bin_s, new.bin_s),
            ("outputs", [(o.name, o.dims, o.unit, o.safe) for o in now.outputs],
             [(o.name, o.dims, o.unit, o.safe) for o in new.outputs]),
        ):  # fmt: skip
            if ours != theirs:
                raise RefusedError(
                    f"its {what} ({theirs}) are not those in service ({ours}); one of another "
                    "kind needs a restart of the daemon with it in the config"
                )
        self._require_lead(bundle)
        unknown, heard = self._unknown_share(bundle)
        if heard and unknown > UNKNOWN_SHARE:
            raise RefusedError(
                f"{unknown:.0%} of the spikes of the last seconds come from units that it does not "
                "know; was it made for another array, or are the units numbered anew?"
            )

    def _require_lead(self, bundle: DecoderBundle) -> None:
        lead_s, known = self._loop.lead_s, bundle.manifest.lead_s
        if not known.min <= lead_s <= known.max:
            raise RefusedError(
                f"the lead time is {lead_s:g} s, and it was trained for {known.min:g} to "
                f"{known.max:g} s; change it first: `spikeloop shape lead_s={known.default:g}`"
            )

    def _unknown_share(self, bundle: DecoderBundle) -> tuple[float, int]:
        batches = [spikes.unit for _, spikes in list(self._loop.slots.recent)]
        unit = np.concatenate(batches) if batches else np.zeros(0, np.int32)
        keys = list(self._source_keys)
        known = np.array([key in bundle.row_of_key for key in keys], dtype=np.bool_)
        return (float(np.mean(~known[unit])), len(unit)) if len(unit) else (0.0, 0)

    def warmed_up(
        self, bundle: DecoderBundle, opened: OpenedBackend, *, tables_only: bool = False
    ) -> DecoderSlot:
        """Return a slot that has run the last seconds' bins, if its network has memory.

        Raises:
            RefusedError: it waited for long, and its weights or tables are damaged by now.
        """
        loop = self._loop
        if opened.memory is not None and (damaged := opened.memory.whole()):
            raise RefusedError(f"{opened.choice} of {bundle.path}: {damaged} changed in memory")
        slot = make_slot(
            bundle, opened, self._source_keys, loop.slots.active.shaper.fresh(),
            token_cap=self._token_cap, keep_alive_every_s=self._keep_alive_every_s,
            kernels=loop.decoder.kernels, journal=loop.journal, tables_only=tables_only,
        )  # fmt: skip
        decoder, recent = slot.decoder, list(loop.slots.recent)
        k_before = recent[0][0] - 1 if recent else loop.last_k
        decoder.forget(k_before)
        decoder.skip_to(k_before if decoder.has_memory or not recent else recent[-1][0])
        # While it runs old bins new ones are cut: go on until only those of this moment are left.
        while decoder.has_memory and recent:
            for k, spikes in recent:
                end_us, t_window = loop.schedule.end_us(k), loop.schedule.window_end_s(k)
                window, _ = decoder.cut(spikes, end_us, t_window)
                decoder.run(window, k, loop.lead_s)
            recent = [held for held in list(loop.slots.recent) if held[0] > decoder.last_k]
        return slot
