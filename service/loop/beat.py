"""The beat: on each deadline the newest bin becomes a decode; bounded work, no logging."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.backends import Backend
from export.errors import BackendError
from export.manifest import Manifest
from service.loop.ingest import Arrival
from service.loop.settle import SettleMeter
from service.loop.shaping import Shaper, as_values
from service.loop.statistics import Histogram
from service.loop.validity import REASONS, Evidence, ValidityJudge
from streams.clock import Clock
from streams.messages import SpikeBatch, TokenWindow
from streams.ring import SpikeRing
from streams.tokenizer import Tokenizer
from streams.wire import Decode

CATCH_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """When beats fall: beat k ends its window at `t0_s + k * hop_us`, k = 1, 2, ..."""

    t0_s: float
    hop_us: int

    def window_end_s(self, k: int) -> float:
        """`t_window` of beat k."""
        return self.t0_s + k * self.hop_us * 1e-6

    def newest_due(self, t_s: float, settle_s: float) -> int:
        """The newest beat whose cutting may start at `t_s`."""
        return int((t_s - settle_s - self.t0_s) / (self.hop_us * 1e-6))


class Decoder:
    """A bundle in service: its backend, and the rows that the source's units have in its tables.

    Args:
        manifest: of the bundle.
        backend: opened on it.
        row_of_key: the bundle's unit map.
        source_keys: the source's growing list of keys.
    """

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        row_of_key: Mapping[str, int],
        source_keys: Sequence[str],
    ) -> None:
        self.manifest = manifest
        self.backend = backend
        self._row_of_key = row_of_key
        self._source_keys = source_keys
        self.row_of = np.zeros(0, np.int32)
        self.known = np.zeros(0, np.bool_)
        self.follow_source()

    def follow_source(self) -> None:
        """Give rows to the keys that the source has shown since."""
        if len(self.row_of) == len(self._source_keys):
            return
        new = self._source_keys[len(self.row_of) :]
        rows = np.array([self._row_of_key.get(key, -1) for key in new], dtype=np.int32)
        self.row_of = np.concatenate((self.row_of, rows))
        self.known = self.row_of >= 0


@dataclass(slots=True)
class BeatCounts:
    """What became of the beats, and of samples that never came."""

    seq: int = 0
    late: int = 0
    skipped: int = 0
    resets: int = 0
    lost_in_transport: int = 0


class Beat:
    """Turns arrivals into decodes; one thread owns it.

    Args:
        clock: the daemon's clock.
        schedule: when beats fall.
        ring: where spikes wait; owned from here on.
        decoder: the decoder in service.
        judge: of validity.
        shaper: from raw to published values.
        run_id: of this run of the daemon.
        lead_s: how far ahead to decode.
        token_cap: at most this many tokens a bin.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        schedule: Schedule,
        ring: SpikeRing,
        decoder: Decoder,
        judge: ValidityJudge,
        shaper: Shaper,
        run_id: str,
        lead_s: float,
        token_cap: int | None = None,
    ) -> None:
        self.counts = BeatCounts()
        self.decode_ms = Histogram(1e-3, 1e4)
        self.settle_meter: SettleMeter | None = None
        self.paused = False
        self.clock_jumped: Callable[[], bool] = lambda: False
        self.trace_beat: Callable[[int, TokenWindow], None] | None = None
        self.trace_arrival: Callable[[Arrival], None] | None = None
        self.keeps_alive = False
        self.last_k = 0
        self.reason = "context_short"
        self._clock, self._schedule, self._ring = clock, schedule, ring
        self.decoder, self._judge, self._shaper = decoder, judge, shaper
        self._run_id, self._lead_s = run_id, lead_s
        self._tokenizer = Tokenizer(ring.bin_us, decoder.row_of, token_cap)
        self._newest_us: int | None = None
        self._k_reset = 0
        self._names = [output.name for output in decoder.manifest.outputs]
        self._units = {output.name: output.unit for output in decoder.manifest.outputs}

    @property
    def ring(self) -> SpikeRing:
        """The ring, for its fates."""
        return self._ring

    def take_in(self, inbox: deque[Arrival]) -> None:
        """Admit what has arrived to the ring."""
        for _ in range(len(inbox)):
            arrival = inbox.popleft()
            if self.trace_arrival is not None:
                self.trace_arrival(arrival)
            self.decoder.follow_source()
            self._ring.admit(arrival.batch, self.decoder.known, arrival.latest_us)
            self._ring.fates.invalid += arrival.n_invalid
            self._ring.fates.duplicate += arrival.n_duplicate
            self.counts.lost_in_transport += arrival.n_lost
            self._hear(arrival)
            if self.settle_meter is not None:
                lag_s = (arrival.t_s - self._schedule.t0_s) - arrival.batch.t_us * 1e-6
                self.settle_meter.add(lag_s, arrival.t_s)

    def begin(self, k: int) -> None:
        """Run every bin up to beat k's, so that the first decode knows what came before it."""
        for k_before in range(self.last_k + 1, k + 1):
            self._run(self._cut(k_before, self._schedule.window_end_s(k_before)))
        self.last_k = max(self.last_k, k)

    def turn(self, k: int, settle_s: float) -> Decode:
        """Do beat k, after running the bins between the last one and it through the memory."""
        self._catch_up(k)
        t_window = self._schedule.window_end_s(k)
        t_cut = self._clock.now()
        window = self._cut(k, t_window)
        raw = self._run(window)
        t_done = self._clock.now()
        self.decode_ms.add((t_done - t_cut) * 1e3)
        finite = raw is None or all(np.isfinite(value).all() for value in raw.values())
        if raw is None or not finite:
            self._forget(k)
        self.reason = self._judged(k, finite=finite, backend_ok=raw is not None)
        self.last_k = k
        return self._decode(k, t_window, t_cut, t_done, settle_s, raw, len(window))

    def last_word(self, reason: str, settle_s: float) -> Decode:
        """A decode that carries no estimate but the safe value, published when the daemon ends."""
        self.reason = reason
        k = self.last_k + 1
        t_s = self._clock.now()
        return self._decode(k, self._schedule.window_end_s(k), t_s, t_s, settle_s, None, 0)

    def _hear(self, arrival: Arrival) -> None:
        heard = [self._newest_us, self._ring.newest_us]
        if arrival.newest_keep_alive_us is not None:
            self.keeps_alive = True
            if arrival.newest_keep_alive_us <= arrival.latest_us:
                heard.append(arrival.newest_keep_alive_us)
        self._newest_us = max((us for us in heard if us is not None), default=None)

    def _catch_up(self, k: int) -> None:
        """Skipped bins still run through the memory, up to a second of them."""
        missing = range(self.last_k + 1, k)
        self.counts.skipped += len(missing)
        if len(missing) * self._ring.hop_us * 1e-6 > CATCH_UP_S:
            self._ring.close((k - 1) * self._ring.hop_us)
            self._forget(k - 1)
            return
        for k_missing in missing:
            self._run(self._cut(k_missing, self._schedule.window_end_s(k_missing)))

    def _cut(self, k: int, t_window: float) -> TokenWindow:
        end_us = k * self._ring.hop_us
        spikes: SpikeBatch
        spikes, slots = self._ring.cut(end_us)
        self._tokenizer.row_of = self.decoder.row_of
        window, kept = self._tokenizer.cut(spikes, end_us, t_window)
        self._ring.mark_used(slots[kept])
        self._ring.close(end_us)
        if self.trace_beat is not None:
            self.trace_beat(k, window)
        return window

    def _run(self, window: TokenWindow) -> Mapping[str, np.ndarray] | None:
        try:
            return self.decoder.backend.step(window, self._lead_s)
        except BackendError:
            return None

    def _forget(self, k: int) -> None:
        self.decoder.backend.reset()
        self._k_reset = k
        self.counts.resets += 1

    def _judged(self, k: int, *, finite: bool, backend_ok: bool) -> str:
        newest_us, t0_s = self._newest_us, self._schedule.t0_s
        return self._judge.judge(
            Evidence(
                t_s=self._clock.now(),
                newest_s=None if newest_us is None else t0_s + newest_us * 1e-6,
                keeps_alive=self.keeps_alive,
                since_reset_s=(k - self._k_reset) * self._ring.hop_us * 1e-6,
                spikes_in=self._ring.fates.spikes_in,
                unknown=self._ring.fates.unknown_unit,
                finite=finite,
                backend_ok=backend_ok,
                clock_jumped=self.clock_jumped(),
                paused=self.paused,
            )
        )

    def _decode(
        self,
        k: int,
        t_window: float,
        t_cut: float,
        t_done: float,
        settle_s: float,
        raw: Mapping[str, np.ndarray] | None,
        n_tokens: int,
    ) -> Decode:
        manifest, fates, newest_us = self.decoder.manifest, self._ring.fates, self._ring.newest_us
        ok = self.reason == "" and raw is not None
        value = self._shaper.shape(raw, t_window) if ok and raw else self._shaper.safe(t_window)
        self.counts.seq += 1
        t_sent = self._clock.now()
        late = t_sent > t_window + settle_s + self._ring.hop_us * 0.5e-6
        self.counts.late += late
        return Decode(
            run_id=self._run_id,
            seq=self.counts.seq,
            beat=k,
            t_window=t_window,
            t_newest_spike=None if newest_us is None else self._schedule.t0_s + newest_us * 1e-6,
            t_done=t_done,
            t_sent=t_sent,
            validity=REASONS[self.reason].name.lower(),
            reason=self.reason,
            late=late,
            value=value,
            value_raw=as_values(raw, self._names),
            units=self._units,
            lead_s=self._lead_s,
            decoder_id=manifest.name,
            checksum=manifest.id,
            tokens=n_tokens,
            spikes_in=fates.spikes_in,
            spikes_late=fates.late,
            spikes_dropped=fates.overflow,
            beats_skipped=self.counts.skipped,
            t_cut=t_cut,
            backend=self.decoder.backend.name,
            precision=self.decoder.backend.precision,
            token_cap=self._tokenizer.token_cap,
        )
