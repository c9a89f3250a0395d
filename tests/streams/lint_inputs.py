"""Streams as arrays for lint's tests: what a sender pushed, and when it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from streams.clock import OffsetEstimate
from streams.lint.findings import Finding, Heard, Report
from streams.lint.judge import lint
from streams.lsl.description import StreamDescription
from streams.lsl.inlets import lsl_now

SECONDS = 10.0
UNITS = 12
LOCAL = OffsetEstimate(0.0, 0.0, 1e-5)


def described(**fields: Any) -> StreamDescription:
    chosen = {
        "name": "rig",
        "type": "Spikes",
        "source_id": "NSP-7",
        "hostname": "rig-pc",
        "n_channels": 3,
        "rate_hz": 0.0,
        "format": "int32",
        "uid": "uid",
    }
    return StreamDescription(**(chosen | fields))


def heard_of(
    values: np.ndarray,
    stamps_s: np.ndarray,
    arrived_s: np.ndarray,
    labels: Sequence[str] = (),
    offset: OffsetEstimate | None = LOCAL,
    **fields: Any,
) -> Heard:
    stream = described(n_channels=values.shape[1], **fields)
    return Heard(stream, tuple(labels), values, stamps_s, arrived_s, SECONDS, offset, False)


def spike_times(n: int = 2000, seed: int = 0) -> np.ndarray:
    """(n,) of ten seconds up to now."""
    return lsl_now() - SECONDS + np.sort(np.random.default_rng(seed).uniform(0.0, SECONDS, n))


def in_blocks(t_s: np.ndarray, block_s: float, delay_s: float = 0.0) -> np.ndarray:
    """When samples come that are pushed in blocks."""
    return np.ceil(t_s / block_s) * block_s + delay_s


def spikes(
    stamps_s: np.ndarray | None = None,
    arrived_s: np.ndarray | None = None,
    seq: np.ndarray | None = None,
    **fields: Any,
) -> Heard:
    """Sound spikes `[channel, unit, seq]` in blocks of 5 ms with a keep-alive every 50 ms."""
    t_s = spike_times()
    n = len(t_s)
    channel = 1 + np.arange(n) % UNITS
    unit = np.ones(n, np.int64)
    alive = np.flatnonzero(np.diff(np.floor(t_s / 0.05), prepend=0.0))
    channel[alive] = unit[alive] = -1
    rows = np.stack([channel, unit, np.arange(n) if seq is None else seq], axis=1)
    chosen = {"labels": ("channel", "unit", "seq")} | fields
    return heard_of(
        rows.astype(np.int32),
        t_s if stamps_s is None else stamps_s,
        in_blocks(t_s, 0.005) if arrived_s is None else arrived_s,
        **chosen,
    )


def counts(rate_hz: float = 50.0, values: np.ndarray | None = None, **fields: Any) -> Heard:
    """Counts of nominally 50 Hz."""
    n = round(SECONDS * rate_hz)
    t_s = lsl_now() - SECONDS + (np.arange(n) + 1.0) / rate_hz
    rng = np.random.default_rng(1)
    held = rng.poisson(0.4, (n, UNITS)).astype(np.int32) if values is None else values
    chosen = {"labels": tuple(f"u{i}" for i in range(held.shape[1])), "rate_hz": 50.0} | fields
    return heard_of(held, t_s[: len(held)], t_s[: len(held)] + 1e-3, **chosen)


def bad(report: Report) -> dict[str, Finding]:
    """What is not good, by what it is; every one says what to change."""
    found = {one.what: one for one in report.findings if one.level != "good"}
    assert all(one.change for one in found.values())
    return found


def bad_of(heard: Heard) -> dict[str, Finding]:
    return bad(lint(heard, [heard.description]))
