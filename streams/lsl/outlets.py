"""Outlets: the streams that we publish. Stamps are seconds on LSL's clock."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pylsl

from streams.errors import AddressError, StreamsError
from streams.lsl.description import KEEP_ALIVE_UNIT, SIMULATED
from streams.lsl.inlets import BUFFER_S, TOO_FEW_FILES
from streams.messages import Float64s, Int32s
from streams.unit_keys import parse_key


def _info(
    name: str,
    stream_type: str,
    labels: Sequence[str],
    rate_hz: float,
    fmt: int,
    source_id: str,
    *,
    simulated: bool = False,
) -> pylsl.StreamInfo:
    info = pylsl.StreamInfo(name, stream_type, len(labels), rate_hz, fmt, source_id)
    info.set_channel_labels(list(labels))
    if simulated:
        info.desc().append_child_value(SIMULATED, "true")
    return info


class Outlet:
    """A stream that we publish; stamps are LSL seconds.

    Args:
        info: the stream.
        budget_per_s: samples per second; the buffer holds `BUFFER_S` seconds.

    Raises:
        AddressError: the system gives no sockets.
    """

    def __init__(self, info: pylsl.StreamInfo, budget_per_s: float = 1000.0) -> None:
        buffered = BUFFER_S if info.nominal_srate() else budget_per_s * BUFFER_S / 100
        try:
            self._outlet = pylsl.StreamOutlet(info, max_buffered=max(1, math.ceil(buffered)))
        except RuntimeError as err:
            raise AddressError(
                f"LSL cannot publish the stream {info.name()!r}: {err} {TOO_FEW_FILES}"
            ) from err

    def has_consumers(self) -> bool:
        """Return True if somebody listens."""
        return bool(self._outlet.have_consumers())

    def wait_for_consumers(self, timeout_s: float) -> bool:
        """Wait until somebody listens; False when nobody came."""
        return bool(self._outlet.wait_for_consumers(timeout_s))

    def close(self) -> None:
        """Take the stream off the network."""
        del self._outlet


class SpikeOutlet(Outlet):
    """Spikes as `type="Spikes"`, int32, irregular, with a sequence channel and keep-alives.

    Args:
        name: the stream's name.
        source_id: lets a receiver recover the stream after an outage.
        keys: unit keys, all `ch<c>/u<u>` (channels `[channel, unit, seq]`) or all `u<id>`
            (channels `[unit, seq]`).
        budget_per_s: spikes per second that the buffer is sized for.
        simulated: say in the stream's description that nobody's neurons are behind it.

    Raises:
        StreamsError: a key has neither form.
    """

    def __init__(
        self,
        name: str,
        source_id: str,
        keys: Sequence[str],
        budget_per_s: float = 50_000.0,
        *,
        simulated: bool = False,
    ) -> None:
        ids = [parse_key(key) for key in keys]
        flat = all(len(one) == 1 for one in ids)
        if not flat and any(len(one) == 1 for one in ids):
            raise StreamsError(f"unit keys of stream {name!r} mix `u<id>` and `ch<c>/u<u>`")
        labels = ("unit", "seq") if flat else ("channel", "unit", "seq")
        self._ids = np.array(ids, dtype=np.int32).reshape(len(ids), len(labels) - 1)
        self._seq = 0
        info = _info(
            name, "Spikes", labels, pylsl.IRREGULAR_RATE, pylsl.cf_int32, source_id,
            simulated=simulated,
        )  # fmt: skip
        super().__init__(info, budget_per_s)

    def push(self, t_s: Float64s, key_index: Int32s, complete_until_s: float | None = None) -> None:
        """Publish spikes, and in the same chunk a keep-alive where a block ends.

        Args:
            t_s: (n,) stamps.
            key_index: (n,) index into the keys.
            complete_until_s: the keep-alive's stamp: no spike that is stamped so, or earlier, is
                still to come; None for no keep-alive.
        """
        self.push_ids(t_s, self._ids[key_index], complete_until_s)

    def push_ids(self, t_s: Float64s, ids: Int32s, complete_until_s: float | None = None) -> None:
        """Publish spikes by their numbers, of units that need not be among the keys.

        Args:
            t_s: (n,) stamps.
            ids: (n, 2) channel and unit, or (n, 1) unit, as the keys are.
            complete_until_s: as in `push`.
        """
        if complete_until_s is not None:
            t_s = np.append(t_s, complete_until_s)
            alive = np.full((1, self._ids.shape[1]), KEEP_ALIVE_UNIT, dtype=np.int32)
            ids = np.concatenate((ids, alive))
        self._send(t_s, ids)

    def keep_alive(self, t_s: float) -> None:
        """Say that we live, and that all is sent that is stamped so: one sample with unit -1."""
        self.push(np.zeros(0), np.zeros(0, np.int32), t_s)

    def _send(self, t_s: Float64s, ids: Int32s) -> None:
        n = len(t_s)
        if not n:
            return
        seq = (np.arange(self._seq, self._seq + n) % 2**31).astype(np.int32)
        self._seq = (self._seq + n) % 2**31
        self._outlet.push_chunk(np.column_stack((ids, seq)), t_s.tolist())


class CountsOutlet(Outlet):
    """Counts per unit at a regular rate, `type="Spikes"`, int32, one channel a unit."""

    def __init__(self, name: str, source_id: str, labels: Sequence[str], rate_hz: float) -> None:
        super().__init__(_info(name, "Spikes", labels, rate_hz, pylsl.cf_int32, source_id))

    def push(self, counts: Int32s, t_s: float) -> None:
        """Publish the (n_units,) counts for the bin that ends at `t_s`."""
        self._outlet.push_sample(counts, t_s)


class MarkerOutlet(Outlet):
    """Event markers: `type="Markers"`, one string channel."""

    def __init__(self, name: str, source_id: str) -> None:
        super().__init__(
            _info(name, "Markers", ("marker",), pylsl.IRREGULAR_RATE, pylsl.cf_string, source_id)
        )

    def push(self, text: str, t_s: float) -> None:
        """Publish one marker."""
        self._outlet.push_sample([text], t_s)


class ValuesOutlet(Outlet):
    """Floating-point channels at irregular stamps: a cursor, a hand, or the decodes."""

    def __init__(
        self,
        name: str,
        stream_type: str,
        source_id: str,
        labels: Sequence[str],
        unit: str = "",
        *,
        simulated: bool = False,
    ) -> None:
        info = _info(
            name, stream_type, labels, pylsl.IRREGULAR_RATE, pylsl.cf_double64, source_id,
            simulated=simulated,
        )  # fmt: skip
        if unit:
            info.set_channel_units([unit] * len(labels))
        super().__init__(info)

    def push(self, values: Float64s | Sequence[float], t_s: float) -> None:
        """Publish one sample, (n_channels,)."""
        self._outlet.push_sample(values, t_s)

    def push_many(self, values: Float64s, t_s: Float64s) -> None:
        """Publish (n, n_channels) samples at (n,) stamps."""
        if len(t_s):
            self._outlet.push_chunk(values, t_s.tolist())


class PositionOutlet(ValuesOutlet):
    """A cursor or a hand: `type="Position"`."""

    def __init__(self, name: str, source_id: str, labels: Sequence[str], unit: str) -> None:
        super().__init__(name, "Position", source_id, labels, unit)
