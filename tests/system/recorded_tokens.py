"""Reads a recorded run, and cuts the tokens offline that its decoder ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.redecode.reading import open_run
from service.telemetry.recording import records
from service.telemetry.recording.frames import runs_in
from service.telemetry.recording.run_journal import tokens_crc
from streams.messages import Int64s, SpikeBatch, TokenWindow
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
    """What arrived in a run, and how many tokens each beat had, with their checksum.

    `hop_us` is also the length of a bin; `ends_us` are the bins' ends, by beat.
    """

    hop_us: int
    received: Received
    ends_us: dict[int, int]
    beats: dict[int, tuple[int, int]]


def recorded_in(folder: Path) -> dict[str, Any]:
    """`[record]` for a daemon whose run is to be read."""
    return {"enabled": True, "folder": str(folder / "recordings")}


def read_run(folder: Path) -> Run:
    """Read the one run of a daemon whose hop is its bin, and whose decoder was not swapped."""
    (path,) = runs_in(folder / "recordings")
    recorded = open_run(path)
    facts, newest_us, keys = recorded.facts, 0, list[str]()
    assert facts["hop_us"] == facts["bin_us"]
    ends_us = {0: 0}
    arrivals: list[tuple[np.ndarray, ...]] = []
    beats: dict[int, tuple[int, int]] = {}
    for one in recorded.records():
        if isinstance(one, records.Header):
            keys[:] = one.keys
        elif isinstance(one, records.Keys):
            keys += one.keys
        elif isinstance(one, records.Cut):
            newest_us = ends_us[one.k] = one.end_us
        elif isinstance(one, records.Ran):
            assert one.k not in beats
            beats[one.k] = one.n_tokens, one.tokens_crc
        elif isinstance(one, records.Arrived):
            arrivals.append(_arrival(one, facts["t0_s"], newest_us, len(keys)))
    assert not recorded.remarks
    t_us, unit, count, *rest = (np.concatenate(column) for column in zip(*arrivals, strict=True))
    received = Received(facts["t0_s"], keys, SpikeBatch(t_us, unit, count), *rest)
    return Run(facts["hop_us"], received, ends_us, beats)


def _arrival(
    one: records.Arrived, t0_s: float, cut_us: int, n_units: int
) -> tuple[np.ndarray, ...]:
    batch = one.batch(n_units)
    t_arrival_us, t_read_us = (
        np.full(len(batch), round((t_s - t0_s) * 1e6)) for t_s in (one.t_s, one.t_read_s)
    )
    return batch.t_us, batch.unit, batch.count, t_arrival_us, t_read_us, batch.t_us <= cut_us


def tokens_cut_offline(run: Run, row_of_key: Mapping[str, int]) -> dict[int, TokenWindow]:
    """Each beat's tokens, cut offline from what had arrived in time.

    They equal those that the decoder ran bit for bit: as many, with the same CRC-32.
    """
    received, in_time = run.received, ~run.received.cut_before
    spikes = received.spikes
    row_of = np.array([row_of_key.get(key, -1) for key in received.keys], np.int32)
    before_us, found = -(2**62), dict[int, TokenWindow]()
    for beat in sorted(run.beats):
        # A bin whose end was slid begins where the one before left off.
        end_us = run.ends_us[beat]
        before_us = max(before_us, end_us - run.hop_us - MOST_SLID_US)
        here = in_time & (spikes.t_us > before_us) & (spikes.t_us <= end_us)
        batch = SpikeBatch(spikes.t_us[here], spikes.unit[here], spikes.count[here])
        bins = cut_bins(batch, row_of, np.array([end_us]), run.hop_us, drop_repeats=False)
        window = TokenWindow(bins.unit, bins.t_rel, bins.count, 0.0)
        found[beat], before_us = window, end_us
        assert (len(window), tokens_crc(window)) == run.beats[beat], f"beat {beat}: {window}"
    return found


def assert_cut_as_offline(run: Run, row_of_key: Mapping[str, int]) -> int:
    """Each beat's tokens equal, bit for bit, those cut offline from what had arrived in time.

    Returns:
        How many tokens were compared.
    """
    return sum(len(window) for window in tokens_cut_offline(run, row_of_key).values())
