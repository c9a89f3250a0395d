"""Reads a daemon's token log back, and cuts the same tokens offline from what it received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.telemetry.token_log import read_token_log
from streams.messages import Float32s, Int32s, Int64s, SpikeBatch
from streams.spikes.ring import MOST_SLID_US
from streams.spikes.tokenizer import cut_bins


@dataclass(frozen=True, slots=True)
class Received:
    """Everything that arrived in a run, in order of arrival.

    Attributes:
        t0_s: the run's t0.
        keys: of the source's units.
        spikes: as converted by the daemon.
        t_arrival_us: (n,) when each arrived, microseconds since t0.
        t_read_us: (n,) when each was read and went to the beat.
        cut_before: (n,) bool, whether its bin had been cut when the beat took it in.
    """

    t0_s: float
    keys: list[str]
    spikes: SpikeBatch
    t_arrival_us: Int64s
    t_read_us: Int64s
    cut_before: np.ndarray


@dataclass(frozen=True, slots=True)
class Run:
    """A token log: what arrived, and the tokens of each beat, by beat.

    `hop_us` is also the length of a bin; `ends_us` are the bins' ends, by beat.
    """

    hop_us: int
    received: Received
    ends_us: dict[int, int]
    beats: dict[int, tuple[Int32s, Float32s, Float32s]]


def read_run(path: Path) -> Run:
    """Read the log of a daemon whose hop is its bin."""
    records = list(read_token_log(path))
    header = records[0]
    assert header["hop_us"] == header["bin_us"]
    hop_us, newest_beat, keys = header["hop_us"], 0, list[str]()
    ends_us = {0: 0}
    arrivals: list[tuple[Int64s, Int32s, Int32s, Int64s, Int64s, np.ndarray]] = []
    beats = {}
    for record in records[1:]:
        if record["kind"] == "keys":
            keys = record["keys"]
        elif record["kind"] == "beat":
            newest_beat = record["beat"]
            assert newest_beat not in beats
            beats[newest_beat], ends_us[newest_beat] = _tokens(record), record["end_us"]
        else:
            arrivals.append(_arrival(record, header["t0_s"], ends_us[newest_beat]))
    t_us, unit, count, *rest = (np.concatenate(column) for column in zip(*arrivals, strict=True))
    received = Received(header["t0_s"], keys, SpikeBatch(t_us, unit, count), *rest)
    return Run(hop_us, received, ends_us, beats)


def _tokens(record: dict[str, Any]) -> tuple[Int32s, Float32s, Float32s]:
    return (
        np.frombuffer(record["row"], np.int32),
        np.frombuffer(record["t_rel"], np.float32),
        np.frombuffer(record["count"], np.float32),
    )


def _arrival(
    record: dict[str, Any], t0_s: float, cut_us: int
) -> tuple[Int64s, Int32s, Int32s, Int64s, Int64s, np.ndarray]:
    t_us = np.frombuffer(record["t_us"], np.int64)
    t_arrival_us, t_read_us = (
        np.full(len(t_us), round((record[name] - t0_s) * 1e6)) for name in ("t_s", "t_read_s")
    )
    unit, count = np.frombuffer(record["unit"], np.int32), np.frombuffer(record["count"], np.int32)
    return t_us, unit, count, t_arrival_us, t_read_us, t_us <= cut_us


def assert_cut_as_offline(run: Run, row_of_key: Mapping[str, int]) -> int:
    """Each beat's tokens equal, bit for bit, those cut offline from what had arrived in time.

    Returns:
        How many tokens were compared.
    """
    received, in_time = run.received, ~run.received.cut_before
    spikes = received.spikes
    row_of = np.array([row_of_key.get(key, -1) for key in received.keys], np.int32)
    numbers, n_compared, before_us = sorted(run.beats), 0, -(2**62)
    for beat in numbers:
        # A bin whose end was slid begins where the one before left off.
        end_us = run.ends_us[beat]
        before_us = max(before_us, end_us - run.hop_us - MOST_SLID_US)
        here = in_time & (spikes.t_us > before_us) & (spikes.t_us <= end_us)
        batch = SpikeBatch(spikes.t_us[here], spikes.unit[here], spikes.count[here])
        bins = cut_bins(batch, row_of, np.array([end_us]), run.hop_us, drop_repeats=False)
        offline, before_us = (bins.unit, bins.t_rel, bins.count), end_us
        n_compared += len(bins.unit)
        for name, live, cut in zip(
            ("unit", "t_rel", "count"), run.beats[beat], offline, strict=True
        ):
            assert live.tobytes() == cut.tobytes(), f"{name} of beat {beat}: {live} against {cut}"
    return n_compared
