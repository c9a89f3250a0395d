"""Sources of counts: every `ok` decode holds whole bins of the source, each once, in its rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.promise.rigs import KEYS, N_UNITS
from tests.promise.test_promise import EXAMPLES, IN_CI, decoder
from tests.promise.world import T_BEGIN_S, Push, SentStream, SimulatedDaemon, World

SECONDS, HOP_S = 6.0, 0.02
T_FAULT_S = T_BEGIN_S + 3.5
FAULTS = ("none", "lost", "nan", "delay", "relabelled")


@dataclass(frozen=True, slots=True)
class CountRig:
    """A source of counts.

    Attributes:
        bins_per_hop: 1, or 2 for counts at twice the beats' rate.
        off: the device's true rate is so much above the nominal.
        jitter: of a stamp, as a share of a bin.
        delay_s: from a bin's end to its arrival.
        fault: what goes wrong at `T_FAULT_S`.
        seed: of the counts.
    """

    bins_per_hop: int
    off: float
    jitter: float
    delay_s: float
    fault: str
    seed: int


RIGS = st.builds(
    CountRig,
    bins_per_hop=st.sampled_from([1, 1, 2]),
    off=st.sampled_from([0.0, 1e-4, -1e-4, 1e-3, -1e-3, 0.01, -0.01]),
    jitter=st.sampled_from([0.0, 0.05, 0.15]),
    delay_s=st.sampled_from([1e-3, 5e-3, 40e-3, 120e-3]),
    fault=st.sampled_from(FAULTS),
    seed=st.integers(0, 2**32 - 1),
)


def send(rig: CountRig) -> tuple[list[SentStream], list[Counter[str]]]:
    """The streams, and the counts by key of every bin that was sent whole."""
    rng = np.random.default_rng(rig.seed)
    bin_s = HOP_S / rig.bins_per_hop
    true_bin_s = bin_s / (1.0 + rig.off)
    n_bins = int((SECONDS + 1.0) / true_bin_s)
    streams, bins = [_stream(KEYS, bin_s)], []
    for i in range(n_bins):
        end_s = T_BEGIN_S - 1.0 + (i + 1) * true_bin_s
        is_on = end_s > T_FAULT_S
        counts = rng.poisson(0.8, N_UNITS)
        counts[0] = i + 1  # no bin is like another
        if is_on and rig.fault == "lost" and rng.random() < 0.2:
            continue
        if is_on and rig.fault == "relabelled":
            if len(streams) == 1:
                streams[0].t_off_s = end_s
                streams.append(_stream(KEYS[::-1], bin_s))
                streams[1].t_on_s = end_s + 0.3
            if end_s < streams[1].t_on_s:
                continue
        values = counts[::-1] if len(streams) == 2 else counts
        values = values.astype(np.float32)
        whole = True
        if is_on and rig.fault == "nan" and rng.random() < 0.2:
            values[rng.integers(0, N_UNITS)] = np.nan
            whole = False
        delay_s = rig.delay_s + (0.15 if is_on and rig.fault == "delay" else 0.0)
        stamp = end_s + rig.jitter * true_bin_s * rng.uniform(-0.5, 0.5)
        streams[-1].pushes.append(
            Push(end_s + delay_s + true_bin_s * 0.2, values[None, :], np.array([stamp]))
        )
        if whole:
            bins.append(Counter({key: int(n) for key, n in zip(KEYS, counts, strict=True) if n}))
    return streams, bins


def _stream(labels: tuple[str, ...], bin_s: float) -> SentStream:
    return SentStream(labels, [], rate_hz=1.0 / bin_s, form="float32")


@settings(
    max_examples=max(1, EXAMPLES // 5),
    deadline=None,
    derandomize=EXAMPLES == IN_CI,
    suppress_health_check=list(HealthCheck),
)
@given(rig=RIGS)
def test_an_ok_decode_holds_whole_bins_each_once_in_its_rows(rig: CountRig) -> None:
    streams, bins = send(rig)
    bundle = decoder(HOP_S)
    daemon = SimulatedDaemon(World(streams), bundle, HOP_S)
    daemon.run(T_BEGIN_S + SECONDS)
    key_of = {row: key for key, row in bundle.row_of_key.items()}
    sums = {
        frozenset(sum(bins[i : i + rig.bins_per_hop], Counter()).items()): i
        for i in range(len(bins) - rig.bins_per_hop + 1)
    }
    used, n_ok = [], 0
    for decode in daemon.decodes:
        if decode.validity != "ok":
            continue
        n_ok += 1
        window = daemon.windows[decode.beat]
        told: Counter[str] = Counter()
        for row, count in zip(window.unit.tolist(), window.count.tolist(), strict=True):
            told[key_of[row]] += int(count)
        assert frozenset(told.items()) in sums, (decode.beat, told)
        used.append(sums[frozenset(told.items())])
    assert len(set(used)) == len(used)
    if rig.fault == "none":
        assert n_ok > 0.9 * (SECONDS - 2.2) / HOP_S
