"""Rigs as people have them, generated: what fires, what is sent of it, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from streams.messages import Float64s
from tests.promise.world import T_BEGIN_S, Push, SentStream

N_UNITS = 8
KEYS = tuple(f"ch{channel}/u1" for channel in range(1, N_UNITS + 1))
STRANGER = 99
COLUMN_NAMES = (
    ("channel", "unit"), ("unit", "channel"), ("Electrode", "sort_code"), ("Unit ID", "ch"),
)  # fmt: skip
WIRE_S = 0.2e-3
T_FIRST_S = T_BEGIN_S - 1.0
KEEP_ALIVE_EVERY_S = 0.05
REFRACTORY_S = 1e-3
LOST_SHARE, SENT_AGAIN_S = 0.3, 0.4
"""A link loses up to this share of pushes; each comes within so long, and holds back the next."""
FAULTS = (
    "none", "delay", "step", "clock", "invalid", "stranger", "resend", "holes", "silence",
    "restart", "unix", "double", "losses",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rig:
    """One rig.

    Attributes:
        rate_hz: spikes a second, of all units together.
        hop_s: of the decoder.
        seconds: how long it runs.
        block_s: the sender pushes blocks of this length.
        delay_s: so long after they end.
        jitter_s: each spike is held up for up to so long more, by itself; 0 in order.
        one_stamp: each block carries one stamp.
        seq: samples are numbered.
        alive: when keep-alives come: never, every 50 ms, or with each block as its watermark.
        columns: names of the first two channels.
        ahead_s: stamps lie so far ahead.
        fault: what goes wrong at `t_fault_s`.
        amount: how much, 0 to 1.
        seed: of the spikes.
    """

    rate_hz: float
    hop_s: float
    seconds: float
    block_s: float
    delay_s: float
    jitter_s: float
    one_stamp: bool
    seq: bool
    alive: str
    columns: tuple[str, str]
    ahead_s: float
    fault: str
    amount: float
    seed: int

    @property
    def t_fault_s(self) -> float:
        """When something goes wrong."""
        return T_BEGIN_S + 0.6 * self.seconds


@st.composite
def rigs(draw: st.DrawFn, seconds: float, hop_s: float) -> Rig:
    """Any rig."""
    block_s = draw(st.sampled_from([2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3]))
    may_jitter = block_s <= 20e-3  # the spikes of a long block come one after another
    jitter_s = draw(st.sampled_from([0.0, 0.0, 0.0, 3e-3, 10e-3] if may_jitter else [0.0]))
    return Rig(
        rate_hz=draw(st.sampled_from([300.0, 800.0] if jitter_s else [300.0, 800.0, 2000.0])),
        hop_s=hop_s,
        seconds=seconds,
        block_s=block_s,
        delay_s=draw(st.sampled_from([0.0, 0.0, 5e-3, 40e-3, 60e-3, 90e-3, 150e-3])),
        jitter_s=jitter_s,
        one_stamp=draw(st.booleans()) and not jitter_s,
        seq=draw(st.booleans()),
        alive=draw(st.sampled_from(["never", "50 ms", "block"])),
        columns=draw(st.sampled_from(COLUMN_NAMES)),
        ahead_s=draw(st.sampled_from([0.0, 0.0, 0.0, 3e-3, 10e-3, 0.05])),
        fault=draw(st.sampled_from(FAULTS)),
        amount=draw(st.floats(0.05, 1.0)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@dataclass(slots=True)
class Truth:
    """What was fired for the decoder and sent, for the oracle.

    Attributes:
        t_s: (n,) when, by the stamp that it was sent with; where its clock steps, on that clock.
        unit: (n,) which unit.
        arrived_s: (n,) when it arrived at the earliest.
    """

    t_s: list[float] = field(default_factory=list)
    unit: list[int] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)


def send(rig: Rig) -> tuple[list[SentStream], Truth]:
    """Send a rig's spikes; also what the daemon should make of them."""
    sender = _Sender(rig)
    if rig.fault == "restart":
        gone_s = rig.t_fault_s
        back_s = gone_s + 0.3 + rig.amount
        first = sender.stream(T_FIRST_S, gone_s, rig.columns, "amp-1")
        first.t_off_s = gone_s
        again = COLUMN_NAMES[(COLUMN_NAMES.index(rig.columns) + 1) % len(COLUMN_NAMES)]
        second = sender.stream(back_s, T_BEGIN_S + rig.seconds, again, "amp-2")
        second.t_on_s = back_s
        return [first, second], sender.truth
    return [sender.stream(T_FIRST_S, T_BEGIN_S + rig.seconds, rig.columns, "amp-1")], sender.truth


class _Sender:
    def __init__(self, rig: Rig) -> None:
        self.rig, self.truth = rig, Truth()
        self._rng = np.random.default_rng(rig.seed)
        self._n_sent = 0
        self._fired_s, self._unit = np.zeros(0), np.zeros(0, np.int64)

    def stream(
        self, from_s: float, until_s: float, columns: tuple[str, str], source_id: str
    ) -> SentStream:
        """Send from `from_s` until `until_s`."""
        rig, pushes = self.rig, []
        t_s, alive_s = from_s, from_s
        self._fire(from_s, until_s)
        while t_s < until_s - rig.block_s:
            pushes += self._block(t_s, columns)
            t_s += rig.block_s
            is_due = rig.alive == "block" or (rig.alive == "50 ms" and t_s >= alive_s)
            if is_due:
                alive_s += KEEP_ALIVE_EVERY_S
                pushes.append(self._alive(t_s, columns))
        pushes.sort(key=lambda push: push.t_s)
        if rig.fault == "losses":
            self._lose_some(pushes)
        labels = (*columns, "seq") if rig.seq else columns
        stream = SentStream(labels, pushes, source_id=source_id)
        if rig.fault == "clock":
            stream.clock_steps = [(rig.t_fault_s, self._step_s)]
        return stream

    def _lose_some(self, pushes: list[Push]) -> None:
        """Delay what was lost until it was sent again, and what came after it."""
        rng, t_free_s = self._rng, 0.0
        for push in pushes:
            is_lost = push.t_s >= self.rig.t_fault_s
            is_lost = is_lost and rng.random() < LOST_SHARE * self.rig.amount
            again_s = SENT_AGAIN_S * rng.random() ** 2 if is_lost else 0.0
            push.t_s = t_free_s = max(t_free_s, push.t_s + again_s)

    def _fire(self, from_s: float, until_s: float) -> None:
        """All spikes of a stretch; none follows one of its unit within the refractory period."""
        n = int(self._rng.poisson(self.rig.rate_hz * (until_s - from_s)))
        fired_s = np.sort(from_s + self._rng.random(n) * (until_s - from_s))
        unit = self._rng.integers(0, N_UNITS, n)
        by_unit = np.argsort(unit, kind="stable")
        again = np.diff(fired_s[by_unit], prepend=-np.inf) < REFRACTORY_S
        again &= np.diff(unit[by_unit], prepend=-1) == 0
        kept = np.ones(n, np.bool_)
        kept[by_unit[again]] = False
        self._fired_s, self._unit = fired_s[kept], unit[kept]

    @property
    def _step_s(self) -> float:
        sign = 1.0 if self.rig.seed % 2 else -1.0
        return sign * (0.006 + 0.3 * self.rig.amount)

    def _block(self, t_s: float, columns: tuple[str, str]) -> list[Push]:
        rig, rng = self.rig, self._rng
        is_on = t_s >= rig.t_fault_s
        bounds = np.searchsorted(self._fired_s, [t_s, t_s + rig.block_s])
        if rig.fault == "silence" and is_on and t_s < rig.t_fault_s + rig.amount:
            bounds[1] = bounds[0]
        fired_s, unit = self._fired_s[slice(*bounds)], self._unit[slice(*bounds)]
        n = len(unit)
        stamps = np.full(n, t_s + rig.block_s) if rig.one_stamp else fired_s.copy()
        channel = unit + 1
        if rig.fault == "stranger" and is_on:
            channel = np.where(rng.random(n) < rig.amount, STRANGER, channel)
        known = channel != STRANGER
        stamps += rig.ahead_s
        sent = stamps + self._stamp_error(t_s)
        code = np.ones(n, np.int64)
        if rig.fault == "invalid" and is_on:
            code = np.where(rng.random(n) < rig.amount, -7, code)
        seq = self._n_sent + np.arange(n)
        self._n_sent += n
        rows = self._rows(columns, channel, code, seq)
        out_s = t_s + rig.block_s + rig.delay_s + WIRE_S
        if rig.fault == "delay" and is_on:
            out_s += 0.02 + 0.3 * rig.amount
        kept = np.ones(n, np.bool_)
        if rig.fault == "holes" and is_on:
            kept = rng.random(n) >= rig.amount
        # What nobody counted, nobody can miss: numbers count what was lost before others came.
        counted = np.arange(n) < np.flatnonzero(kept).max(initial=-1) if rig.seq else kept
        told = known & (kept | counted)
        self._note(stamps[told], unit[told], sent[told], out_s)
        pushes = self._pushes(out_s, rows[kept], sent[kept])
        if rig.fault == "resend" and is_on and n:
            later_s = out_s + max(1.5 * rig.block_s, 0.05)
            pushes.append(Push(later_s, rows[kept], sent[kept]))
        if rig.fault == "double" and is_on and not rig.one_stamp:
            pushes += [Push(push.t_s, push.samples, push.stamps) for push in pushes]
        return pushes

    def _pushes(self, out_s: float, rows: np.ndarray, stamps: Float64s) -> list[Push]:
        if not self.rig.jitter_s or not len(rows):
            return [Push(out_s, rows, stamps)] if len(rows) else []
        late_s = self._rng.random(len(rows)) * self.rig.jitter_s
        return [
            Push(out_s + float(late_s[i]), rows[i : i + 1], stamps[i : i + 1])
            for i in np.argsort(late_s, kind="stable")
        ]

    def _stamp_error(self, t_s: float) -> float:
        rig = self.rig
        if t_s < rig.t_fault_s:
            return 0.0
        if rig.fault in ("step", "clock"):
            return self._step_s
        return 1.7e9 if rig.fault == "unix" else 0.0

    def _note(self, stamps: Float64s, unit: np.ndarray, sent: Float64s, out_s: float) -> None:
        """Note what the daemon should make of it; a stamp that cannot be known as wrong counts."""
        by_stamp = sent if self.rig.fault in ("step", "clock") else stamps
        self.truth.t_s += by_stamp.tolist()
        self.truth.unit += unit.tolist()
        self.truth.arrived_s += [out_s] * len(unit)

    def _rows(
        self, columns: tuple[str, str], channel: np.ndarray, code: np.ndarray, seq: np.ndarray
    ) -> np.ndarray:
        first_is_channel = columns[0].lower() in ("channel", "electrode")
        ids = (channel, code) if first_is_channel else (code, channel)
        chosen = (*ids, seq) if self.rig.seq else ids
        return np.stack(chosen, axis=1).astype(np.int32).reshape(len(channel), len(chosen))

    def _alive(self, t_s: float, columns: tuple[str, str]) -> Push:
        seq = np.array([self._n_sent])
        self._n_sent += 1
        row = self._rows(columns, np.array([-1]), np.array([-1]), seq)
        error_s = self._stamp_error(t_s) + self.rig.ahead_s
        later_s = 0.0
        if self.rig.fault == "delay" and t_s >= self.rig.t_fault_s:
            later_s = 0.02 + 0.3 * self.rig.amount
        out_s = t_s + self.rig.delay_s + 1.1 * WIRE_S + later_s + self.rig.jitter_s
        return Push(out_s, row, np.array([t_s + error_s]))
