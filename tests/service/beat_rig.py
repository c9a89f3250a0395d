"""A decode loop over a real bundle and backend, with a clock and arrivals that the test owns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle
from service.loop.commands import LoopCommand
from service.loop.decode_loop import DecodeLoop
from service.loop.decoder import Decoder
from service.loop.intake.admission import Admission
from service.loop.intake.arrivals import Arrival, Observer
from service.loop.intake.schedule import Schedule
from service.loop.intake.settle import SettleTime
from service.loop.journal import Journal
from service.loop.shaping import Shaper
from service.loop.slots import DecoderSlot
from service.loop.token_cap import TokenCap
from service.loop.validity import ValidityJudge
from streams.clock import ManualClock
from streams.messages import SpikeBatch
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.ring import SpikeRing
from streams.wire.schema import Decode
from tests.service.kept_windows import KeptWindows

UNIT_KEYS = ("u3", "u1", "ch7/u2", "ch7/u1")
SOURCE_KEYS = ("ch7/u1", "u3", "stranger", "u1", "ch7/u2")
STRANGER = 2
HOP_US = 20_000
HOP_S = 0.02
SETTLE_S = 0.002
T0_S = 1000.0
CONTEXT_BEATS = 25
KEEP_ALIVE_S = 0.05

Spikes = Sequence[tuple[int, int]]


def batch_of(spikes: Spikes) -> SpikeBatch:
    """Spikes given as (stamp in us since t0, index of the source's unit)."""
    pairs = np.array(spikes, np.int64).reshape(-1, 2)
    ones = np.ones(len(pairs), np.int32)
    return SpikeBatch(pairs[:, 0].copy(), pairs[:, 1].astype(np.int32), ones)


def estimate(decode: Decode) -> dict[str, Any]:
    """What the network said, and of how many tokens."""
    return decode.value_raw | {"tokens": decode.tokens}


class BeatRig:
    """Steps through beats; the clock stands at each one's due time unless the test says later."""

    def __init__(
        self,
        bundle: DecoderBundle,
        *,
        token_cap: int | None = None,
        capacity: int = 10_000,
        kernels: Kernels = NUMPY,
        source_fault: Callable[[], str] = lambda: "",
        shed: TokenCap | None = None,
        observer: Observer | None = None,
        journal: Journal | None = None,
    ) -> None:
        manifest = bundle.manifest
        self.bundle, self.kept = bundle, KeptWindows()
        self.windows = self.kept.windows
        self.clock = ManualClock(T0_S)
        self.backend = open_cpu(bundle)
        self.source_keys = list(SOURCE_KEYS)
        self.decoder = Decoder(
            manifest,
            self.backend,
            bundle.row_of_key,
            self.source_keys,
            token_cap,
            kernels=kernels,
            journal=journal or self.kept,
        )
        self.inbox: deque[Arrival] = deque()
        self.events: list[tuple[str, dict[str, Any]]] = []
        judge = ValidityJudge(manifest.context_s, manifest.stale_after_s, KEEP_ALIVE_S, HOP_S)
        ring = SpikeRing(capacity, round(manifest.bin_s * 1e6), HOP_US, HOP_US, kernels)
        self.loop = DecodeLoop(
            clock=self.clock,
            ring=ring,
            admission=Admission(
                ring, Schedule(T0_S, HOP_US), SettleTime(SETTLE_S * 1e3, HOP_S, 0.5), None
            ),
            slot=DecoderSlot(self.decoder, judge, Shaper(manifest.outputs)),
            inbox=self.inbox,
            arrivals=self,
            run_id="7f3a",
            lead_s=manifest.lead_s.default,
            report=lambda event, detail: self.events.append((event, detail)),
            source_fault=source_fault,
            token_cap=shed,
            observer=observer,
            journal=journal or self.kept,
        )

    def await_arrival(self, wait_s: float) -> None:
        """Nothing arrives: time passes."""
        self.clock.t_s += wait_s

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Nothing arrives meanwhile."""
        yield

    def ask(self, change: str, **asked: Any) -> LoopCommand:
        """Give the loop a command, carried out at the next beat."""
        command = LoopCommand(change, **asked)  # type: ignore[arg-type]
        self.loop.commands.put(command)
        return command

    def arrive(
        self,
        spikes: Spikes,
        *,
        keep_alive_us: int | None = None,
        n_invalid: int = 0,
        n_duplicate: int = 0,
    ) -> None:
        """Let spikes arrive now."""
        now_us = round((self.clock.now() - T0_S) * 1e6)
        batch = batch_of(spikes)
        self.inbox.append(
            Arrival(
                t_s=self.clock.now(),
                t_read_s=self.clock.now(),
                batch=batch,
                latest_us=now_us + 5000,
                newest_keep_alive_us=keep_alive_us,
                invalid_us=np.full(n_invalid, now_us),
                n_duplicate=n_duplicate,
                n_lost=0,
            )
        )
        self.loop.admit()

    def go_to(self, k: int, late_s: float = 0.0) -> None:
        """Move the clock to when beat k is due."""
        self.clock.sleep_until(T0_S + k * HOP_S + SETTLE_S + late_s)

    def turn(self, k: int, late_s: float = 0.0) -> Decode:
        """Do beat k when it is due."""
        self.go_to(k, late_s)
        return self.loop.step(k)

    def fed_turn(self, k: int) -> Decode:
        """Do beat k with two spikes in its window."""
        self.go_to(k)
        self.arrive([((k - 1) * HOP_US + 1 + k, 0), (k * HOP_US, 1)])
        return self.turn(k)

    def warm(self, n_beats: int = CONTEXT_BEATS) -> int:
        """Turn the first beats, so that the next is `ok`; returns the number of the last."""
        for k in range(1, n_beats + 1):
            self.fed_turn(k)
        return n_beats

    def n_arrived(self) -> int:
        """All spikes that ever arrived, by the ring's account."""
        return self.loop.ring.fates.spikes_in + self.loop.ring.n_pending
