"""Replay a recorded run: admit, cut and decode again as it was done, in the same order."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import msgspec
import numpy as np

from export.backends.table import Backend, Remembers, kernels_for
from export.bundle import DecoderBundle
from service.loop.shaping import HOLD_MAX_S, Shaper, Shaping, as_values
from service.redecode.reading import Begins, RecordedRun
from service.telemetry.recording import records
from service.telemetry.recording.run_journal import tokens_crc
from streams.messages import SpikeBatch, TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.ring import HeldSpikes, SpikeRing
from streams.spikes.tokenizer import Tokenizer
from streams.wire.schema import Decode, Values

BINS_KEPT_S = 120.0
"""A decoder that is warmed up runs bins of some seconds ago."""
RESULTS_KEPT = 64
NOT_OPENED, NOT_KNOWN = "its decoder cannot be opened", "its memory before the hole is not known"


@dataclass(frozen=True, slots=True)
class Opened:
    """A decoder for a replay: its bundle, and a backend of its own with zero memory."""

    bundle: DecoderBundle
    backend: Backend


Open = Callable[[Mapping[str, Any]], Opened | None]
"""Opens what `records.Opened` tells of a decoder; None where it cannot be opened."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A cut bin: its spikes, its end, and the rule that cut it."""

    spikes: SpikeBatch
    end_us: int
    rule: str


@dataclass(frozen=True, slots=True)
class Remade:
    """A decode that was said, and made again.

    Attributes:
        topic: `decode` or `shadow`.
        decode: as it was said.
        why_not: why it cannot be made again; "" if it was.
        value_raw: the network's answer, made again; null where no network ran.
        value: the same shaped, or the safe value; None of a shadow decode.
        window: its tokens; None where no network ran.
        bin: the spikes; None where no bin was cut.
        same_tokens: the tokens are those that the daemon had, bit for bit.
        keys: of the source's units.
        opened: what made it; None if it could not be opened.
    """

    topic: str
    decode: Decode
    why_not: str
    value_raw: Values
    value: Values | None
    window: TokenWindow | None
    bin: Bin | None
    same_tokens: bool
    keys: list[str]
    opened: Opened | None


@dataclass(slots=True)
class _Result:
    raw: dict[str, np.ndarray] | None
    window: TokenWindow | None
    same_tokens: bool
    why_not: str = ""


@dataclass(slots=True)
class _Running:
    """A decoder of the run, in the replay."""

    opened: Opened | None
    tokenizer: Tokenizer
    is_known: bool = True
    results: OrderedDict[int, _Result] = field(default_factory=OrderedDict)

    def keep(self, k: int, result: _Result) -> None:
        self.results[k] = result
        while len(self.results) > RESULTS_KEPT:
            self.results.popitem(last=False)


@dataclass(slots=True)
class Checks:
    """Counts of what a replay compared by the way.

    Attributes:
        n_ran: bins that decoders ran.
        n_other_tokens: of these, with other tokens than the daemon's.
        n_checkpoints: compared with the replay's own state; `n_other_checkpoints` differed.
    """

    n_ran: int = 0
    n_other_tokens: int = 0
    n_checkpoints: int = 0
    n_other_checkpoints: int = 0


class Replay:
    """One pass through a run.

    Args:
        run: the recorded run.
        open_decoder: opens its decoders.

    Attributes:
        checks: what was compared by the way.
        events: events and heartbeats that were told so far are handed to `on_told`.
    """

    def __init__(self, run: RecordedRun, open_decoder: Open) -> None:
        self.checks, self.keys = Checks(), list[str]()
        self.bins: OrderedDict[int, Bin] = OrderedDict()
        self._run, self._open, self._facts = run, open_decoder, run.facts
        self._told: dict[int, Mapping[str, Any]] = {}
        self._running: dict[int, _Running] = {}
        self._known = np.zeros(0, np.bool_)
        self._kernels: Kernels = NUMPY
        self._ring = new_ring(self._facts, 0, self._kernels)
        self._shaper: Shaper | None = None
        self._t_unshaped_s = -math.inf
        self._shaping, self._is_hole = Shaping(), True
        self._held: records.Checkpoint | None = None
        self._n_bins = max(8, round(BINS_KEPT_S * 1e6 / self._facts["hop_us"]))
        self._decode = msgspec.json.Decoder(Decode)

    def __iter__(self) -> Iterator[Remade]:
        """Yield each decode that was said, made again."""
        take: dict[type, Callable[[Any], None]] = {
            Begins: self._begins,
            records.Header: self._header,
            records.Keys: self._more_keys,
            records.Opened: self._opened,
            records.Known: self._now_known,
            records.Arrived: self._arrived,
            records.Cut: self._cut,
            records.Closed: lambda one: self._ring.close(one.end_us),
            records.Ran: self._ran,
            records.Failed: self._failed,
            records.Forgot: self._forgot,
            records.Commanded: self._commanded,
            records.Checkpoint: self._checkpoint,
        }
        for one in self._run.records():
            if isinstance(one, records.Said):
                yield self._said(one)
            elif (handle := take.get(type(one))) is not None:
                handle(one)

    def _begins(self, begins: Begins) -> None:
        self._is_hole = True

    def _header(self, header: records.Header) -> None:
        self.keys[:] = header.keys
        self._told |= header.decoders

    def _more_keys(self, more: records.Keys) -> None:
        self.keys += more.keys

    def _opened(self, told: records.Opened) -> None:
        self._told[told.number] = told.facts

    def _now_known(self, now: records.Known) -> None:
        self._known = now.units()

    def _arrived(self, arrived: records.Arrived) -> None:
        batch = arrived.batch(len(self._known))
        self._ring.admit(batch, self._known, arrived.latest_us, arrived.repeats)

    def _cut(self, cut: records.Cut) -> None:
        spikes, slots = self._ring.cut(cut.end_us)
        self._ring.assign_fate(slots, "used")
        self._ring.close(cut.end_us)
        self.bins[cut.k] = Bin(spikes, cut.end_us, cut.rule)
        while len(self.bins) > self._n_bins:
            self.bins.popitem(last=False)

    def _ran(self, ran: records.Ran) -> None:
        one, cut = self._of(ran.number), self.bins.get(ran.k)
        if one.opened is None or cut is None or not one.is_known:
            one.is_known = one.is_known and cut is not None
            why = NOT_OPENED if one.opened is None else NOT_KNOWN
            one.keep(ran.k, _Result(None, None, same_tokens=True, why_not=why))
            return
        one.tokenizer.token_cap = ran.token_cap
        window = self._tokens(one, cut)
        same = (len(window), tokens_crc(window)) == (ran.n_tokens, ran.tokens_crc)
        raw = one.opened.backend.step(window, ran.lead_s)
        one.keep(ran.k, _Result({n: v.copy() for n, v in raw.items()}, window, same))
        self.checks.n_ran += 1
        self.checks.n_other_tokens += not same

    def _tokens(self, one: _Running, cut: Bin) -> TokenWindow:
        opened = one.opened
        n_new = len(self.keys) - len(one.tokenizer.row_of)
        if n_new and opened is not None:
            row_of_key = opened.bundle.row_of_key
            rows = [row_of_key.get(key, -1) for key in self.keys]
            one.tokenizer.row_of = np.array(rows, np.int32)
        t_window = self._facts["t0_s"] + cut.end_us * 1e-6
        return one.tokenizer.cut(cut.spikes, cut.end_us, t_window)[0]

    def _failed(self, failed: records.Failed) -> None:
        nothing = _Result(None, None, same_tokens=True)
        self._of(failed.number).keep(failed.k, nothing)

    def _forgot(self, forgot: records.Forgot) -> None:
        one = self._of(forgot.number)
        one.is_known = True
        if one.opened is not None:
            one.opened.backend.reset()

    def _of(self, number: int) -> _Running:
        if number not in self._running:
            opened = self._open(self._told.get(number, {}))
            if opened is not None and not self._running:
                # The daemon's loop had the kernels of its first decoder; they give the same.
                self._kernels = kernels_for(opened.backend)
            tokenizer = Tokenizer(self._facts["bin_us"], np.zeros(0, np.int32), None, self._kernels)
            self._running[number] = _Running(opened, tokenizer)
        return self._running[number]

    def _commanded(self, command: records.Commanded) -> None:
        if command.change == "shape":
            settings = {key: value for key, value in command.detail.items() if key != "lead_s"}
            if settings:
                self._shape(settings)

    def _shape(self, settings: Mapping[str, Any]) -> None:
        bounds = settings["bounds"]
        bounds = bounds and {name: tuple(of) for name, of in bounds.items()}
        self._shaping = Shaping(**{**settings, "bias": tuple(settings["bias"]), "bounds": bounds})
        if self._shaper is not None:
            self._shaper.use(self._shaping)

    def _checkpoint(self, point: records.Checkpoint) -> None:
        if not self._is_hole:
            self.checks.n_checkpoints += 1
            self.checks.n_other_checkpoints += not self._is_as(point)
            return
        self._is_hole = False
        self._known = point.units()
        batch = point.batch()
        for one in self._running.values():
            one.is_known = False
        for memory in point.decoders:
            self._remember(memory)
        self._ring = new_ring(self._facts, point.late_until_us, self._kernels)
        self._ring.resume(HeldSpikes(point.late_until_us, point.newest_us, batch))
        self.bins.clear()
        self._shape(point.shaping)
        self._held = point
        self._shaper, self._t_unshaped_s = None, -math.inf

    def _remember(self, held: records.Memory) -> None:
        one = self._of(held.number)
        if one.opened is None:
            return
        backend = one.opened.backend
        backend.reset()
        memory = _arrays(held.memory or {})
        one.is_known = held.memory is not None and not any(a.any() for a in memory.values())
        if not one.is_known and _takes(backend, memory):
            backend.set_memory(memory)
            one.is_known = True

    def _is_as(self, point: records.Checkpoint) -> bool:
        """Return True if the replay has come to the state that the daemon was in."""
        held = self._ring.held()
        same = (
            held.late_until_us == point.late_until_us
            and held.batch.t_us.tobytes() == point.t_us
            and held.batch.unit.tobytes() == point.unit
            and held.batch.count.tobytes() == point.count
        )
        for memory in point.decoders:
            one = self._of(memory.number)
            if one.opened is None or not one.is_known or not memory.memory:
                continue
            backend, wanted = one.opened.backend, _arrays(memory.memory)
            if _takes(backend, wanted):
                ours = backend.memory()
                same &= all(ours[name].tobytes() == wanted[name].tobytes() for name in wanted)
        return same

    def _said(self, said: records.Said) -> Remade:
        decode, one = self._decode.decode(said.decode), self._of(said.number)
        result = one.results.get(decode.beat) or _Result(None, None, same_tokens=True)
        why_not = result.why_not
        if one.opened is None:
            why_not = why_not or NOT_OPENED
        raw = result.raw
        names = list(decode.value_raw)
        value = self._value(said, decode, raw, one) if said.topic == "decode" else None
        return Remade(
            said.topic, decode, why_not, as_values(raw, names), value, result.window,
            self.bins.get(decode.beat), result.same_tokens, self.keys, one.opened,
        )  # fmt: skip

    def _value(
        self,
        said: records.Said,
        decode: Decode,
        raw: Mapping[str, np.ndarray] | None,
        one: _Running,
    ) -> Values | None:
        """The shaped or safe value; None while what smoothing goes on from is not known."""
        shaper, value = self._shaper_beside(one), None
        if shaper is None:
            self._t_unshaped_s = decode.t_window
            return None
        if raw is None and said.was_shaped:
            raw = _as_raw(decode.value_raw)  # what follows was smoothed with what was said
        if raw is not None and (said.was_shaped or decode.reason == "non_finite"):
            value = shaper.shape(raw, decode.t_window)
        if decode.reason:
            value = shaper.safe(decode.t_window)
        if said.then_safe:
            shaper.safe(decode.t_window)
        is_known = math.isinf(self._t_unshaped_s)
        if decode.reason and decode.t_window > self._t_unshaped_s + HOLD_MAX_S:
            self._t_unshaped_s = -math.inf
        return value if is_known else None

    def _shaper_beside(self, one: _Running) -> Shaper | None:
        """The shaper; None as long as no decoder could be opened that tells the outputs."""
        if self._shaper is None:
            opened = [r.opened for r in (one, *self._running.values()) if r.opened is not None]
            if not opened:
                return None
            self._shaper = Shaper(opened[0].bundle.manifest.outputs, self._shaping)
            if self._held is not None:
                self._shaper.resume(self._held.smooth, self._held.last_ok)
        return self._shaper


def new_ring(facts: Mapping[str, Any], late_until_us: int, kernels: Kernels) -> SpikeRing:
    """Return an empty ring like the daemon's, closed up to there."""
    bin_us, hop_us = facts["bin_us"], facts["hop_us"]
    return SpikeRing(facts["ring_capacity"], bin_us, hop_us, late_until_us + bin_us, kernels)


def _takes(backend: Backend, memory: Mapping[str, np.ndarray]) -> TypeGuard[Remembers]:
    """Return True if a backend has a memory of this form; another backend's has another."""
    if not memory or not isinstance(backend, Remembers):
        return False
    ours = {name: array.shape for name, array in backend.memory().items()}
    return ours == {name: array.shape for name, array in memory.items()}


def _as_raw(values: Values) -> dict[str, np.ndarray] | None:
    """The network's answer as it was said; None where it said none, or one that is not finite."""
    told = {name: of for name, of in values.items() if of is not None and None not in of}
    if len(told) < len(values):
        return None
    return {name: np.array(of, np.float32) for name, of in told.items()}


def _arrays(memory: Mapping[str, tuple[list[int], bytes]]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(held, np.float32).reshape(shape)
        for name, (shape, held) in memory.items()
    }
