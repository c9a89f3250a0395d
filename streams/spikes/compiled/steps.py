"""Layout, ring and tokenizer that do what is plain by compiled loops, and the rest as they did."""

from __future__ import annotations

from typing import Literal

import numpy as np

from streams.clock import FAR_S
from streams.messages import Float64s, Int32s, Int64s, Repeats, SpikeBatch, TokenWindow
from streams.spikes.compiled.kernels import (
    GIVEN_UP,
    admit_in_order,
    choose_bin,
    close_until,
    convert_stamps,
    order_tokens,
    read_events,
    settle_slots,
)
from streams.spikes.layouts import MOST_AT_ONCE, EventLayout
from streams.spikes.ring import NEVER_US, SpikeRing
from streams.spikes.tokenizer import Tokenizer


def stamps_to_us(stamps: Float64s, offset_s: float, t0_s: float) -> Int64s:
    """See `streams.clock.stamps_to_us`."""
    t_us = np.empty(len(stamps), np.int64)
    convert_stamps(stamps, offset_s, t0_s, FAR_S, t_us)
    return t_us


class CompiledEventLayout(EventLayout):
    """See `EventLayout`."""

    def _units_if_plain(self, samples: np.ndarray, stamps: Float64s) -> Int32s | None:
        n, sequence = len(stamps), self._sequence
        if samples.dtype != np.int32 or not 0 < n <= MOST_AT_ONCE:
            return None
        i_channel, i_seq = (-1 if i is None else i for i in (self._i_channel, self._i_seq))
        unit = np.empty(n, np.int32)
        newest_s = read_events(
            samples, stamps, i_channel, self._i_unit, i_seq, self.table.grid,
            sequence.next_number, sequence.seen, sequence.stamp_s, unit,
        )  # fmt: skip
        if newest_s == GIVEN_UP:
            return super()._units_if_plain(samples, stamps)
        if i_seq >= 0:
            sequence.next_number += n
            sequence.newest_s = max(sequence.newest_s, newest_s)
        return unit


class CompiledRing(SpikeRing):
    """See `SpikeRing`."""

    def admit(
        self, batch: SpikeBatch, known: np.ndarray, latest_us: int, repeats: Repeats = "all"
    ) -> int:
        """See `SpikeRing.admit`; contiguous arrays."""
        n_spikes = admit_in_order(
            batch.t_us, batch.unit, batch.count, known, self._next_start_us, latest_us,
            self._latest_us, repeats != "all", self._latest_of_unit, self._t_us, self._unit,
            self._count, self._settled, self._n_admitted, self._i_live,
        )  # fmt: skip
        if n_spikes == GIVEN_UP:
            return super().admit(batch, known, latest_us, repeats)
        if n_spikes:
            first_us, last_us = int(batch.t_us[0]), int(batch.t_us[-1])
            self._n_admitted += len(batch)
            self._n_pending += n_spikes
            self._latest_us = self.newest_us = last_us
            self._changed_from_us = min(self._changed_from_us, first_us)
        return len(batch)

    def cut(self, bin_end_us: int) -> tuple[SpikeBatch, Int64s]:
        """See `SpikeRing.cut`."""
        self._changed_from_us = NEVER_US
        room = self._n_admitted - self._i_live
        t_us, slots = np.empty(room, np.int64), np.empty(room, np.int64)
        unit, count = np.empty(room, np.int32), np.empty(room, np.int32)
        n = choose_bin(
            self._t_us, self._unit, self._count, self._i_live, self._n_admitted,
            bin_end_us - self.bin_us, bin_end_us, t_us, unit, count, slots,
        )  # fmt: skip
        return SpikeBatch(t_us[:n], unit[:n], count[:n]), slots[:n]

    def settle(self, slots: Int64s, fate: Literal["used", "unknown_unit", "overflow"]) -> None:
        """See `SpikeRing.settle`."""
        self._note_settled(settle_slots(slots, self._settled, self._count), fate)

    def _leave_behind(self) -> None:
        n_never_cut, self._i_live = close_until(
            self._t_us, self._settled, self._count, self._i_live, self._n_admitted,
            self._next_start_us,
        )  # fmt: skip
        self._note_settled(n_never_cut, "overflow")


class CompiledTokenizer(Tokenizer):
    """See `Tokenizer`."""

    def cut(
        self, spikes: SpikeBatch, bin_end_us: int, t_window: float
    ) -> tuple[TokenWindow, Int64s]:
        """See `Tokenizer.cut`; contiguous arrays."""
        room = len(spikes)
        order, row = np.empty(room, np.int64), np.empty(room, np.int32)
        t_rel, count = np.empty(room, np.float32), np.empty(room, np.float32)
        n = order_tokens(
            spikes.t_us, spikes.unit, spikes.count, self.row_of, bin_end_us - self.bin_us,
            order, row, t_rel, count,
        )  # fmt: skip
        if n == GIVEN_UP or (self.token_cap is not None and n > self.token_cap):
            return super().cut(spikes, bin_end_us, t_window)
        return TokenWindow(row[:n], t_rel[:n], count[:n], t_window), order[:n]
