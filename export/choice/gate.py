"""The gate that each backend must pass before it decodes.

A backend that disagrees with the recorded outputs, or is too slow for the hop, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.backends import table
from export.backends.table import Backend, parse_choice
from export.bundle import DecoderBundle
from export.choice.ranking import Ranking
from export.errors import BackendUnavailable, BundleError, ExportError
from export.memory_check import MemoryCheck
from export.parity import largest_error
from streams.clock import Clock, MonotonicClock, ThreadClock
from streams.messages import TokenWindow

N_WARMUP_RUNS = 20
N_TIMED_RUNS = 200
N_TIMED_ROUNDS = 3
N_HOPELESS_RUNS = 20
"""After so many timed runs of which none was quick enough, no more are made."""
IN_CALLING_THREAD = ("numba-cpu", "onnxruntime-cpu", "torch")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A backend that was tried and refused, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class OpenedBackend:
    """A backend that passed the gate.

    Attributes:
        choice: its name, and its precision if one was asked for, as in the config.
        backend: ready for its first step, with zero memory.
        parity_error: largest absolute difference from the recorded outputs, physical units.
        step_p50_s: median of the timed runs at the largest bucket, seconds.
        step_p99_s: their 99th percentile.
        tried: those refused before it.
        next_choices: what may take its place if it fails in service, in this order.
        ranking: the times that it was chosen by; None where the config names it.
        memory: holds its memory to what passed; None where nothing of it can be looked at.
    """

    choice: str
    backend: Backend
    parity_error: float
    step_p50_s: float
    step_p99_s: float
    tried: tuple[Attempt, ...] = ()
    next_choices: tuple[str, ...] = ()
    ranking: Ranking | None = None
    memory: MemoryCheck | None = None


def refusal_of(refused: Mapping[str, ExportError]) -> ExportError:
    """One error for all that was tried; of the bundle, if any backend could run it at all.

    Args:
        refused: by the names of the backends; at least one.
    """
    if len(refused) == 1:
        return next(iter(refused.values()))
    text = "; ".join(f"{name}: {error}" for name, error in refused.items())
    of_bundle = any(isinstance(error, BundleError) for error in refused.values())
    return (BundleError if of_bundle else BackendUnavailable)(f"every backend refused: {text}")


def _clock_of(choice: str) -> Clock:
    return ThreadClock() if parse_choice(choice)[0] in IN_CALLING_THREAD else MonotonicClock()


def open_one(bundle: DecoderBundle, choice: str, clock: Clock | None = None) -> OpenedBackend:
    """Open one backend for a bundle, warm it up, and hold it against the record and the hop.

    Args:
        bundle: the decoder.
        choice: `NAME` or `NAME:PRECISION`.
        clock: times the runs; by default the thread's processor time where a backend computes in
            the calling thread, so that a busy moment of the machine refuses no decoder.

    Raises:
        BackendUnavailable: it cannot run here, or the name is unknown.
        BundleError: it disagrees with the record, or is too slow.
    """
    name, precision = parse_choice(choice)
    backend = table.BACKENDS[name](bundle, precision)
    error = require_parity(bundle, backend)
    memory = MemoryCheck(backend, bundle.parity)
    p50_s, p99_s = _timed(bundle, backend, clock or _clock_of(choice))
    if p99_s > bundle.manifest.hop_s / 2:
        raise BundleError(_too_slow(bundle, choice, p99_s))
    return OpenedBackend(choice, backend, error, p50_s, p99_s, memory=memory)


def require_parity(bundle: DecoderBundle, backend: Backend) -> float:
    """Replay the bundle's record.

    Returns:
        The largest absolute error, in the outputs' units.

    Raises:
        BundleError: it is above what the manifest allows for the backend's precision.
    """
    declared = bundle.manifest.parity
    limit = declared.atol_fp32 if backend.precision == "fp32" else declared.atol_reduced
    error = largest_error(backend, bundle.parity())
    if error > limit:
        raise BundleError(
            f"backend {backend.name!r} disagrees with the outputs recorded in {bundle.path}: "
            f"by {error:.3g} where {limit:.3g} is allowed ({backend.precision}); "
            "use another backend, or export the bundle again"
        )
    return error


def _timed(bundle: DecoderBundle, backend: Backend, clock: Clock) -> tuple[float, float]:
    """Median and 99th percentile of a step, seconds.

    A round that is too slow is repeated: two runs of 200 that another program delayed are no fault
    of the decoder, and a decoder that is too slow is so in every round.
    """
    rounds: list[tuple[float, float]] = []
    while len(rounds) < N_TIMED_ROUNDS:
        taken_s = _time_steps(bundle, backend, clock)
        p50_s, p99_s = (float(value) for value in np.percentile(taken_s, (50, 99)))
        rounds.append((p99_s, p50_s))
        if p99_s <= bundle.manifest.hop_s / 2 or p50_s > bundle.manifest.hop_s / 2:
            break
    p99_s, p50_s = min(rounds)
    return p50_s, p99_s


def _time_steps(bundle: DecoderBundle, backend: Backend, clock: Clock) -> list[float]:
    """Seconds of each timed run at the largest bucket; the memory is zero afterwards."""
    window = _full_window(bundle)
    lead_s = bundle.manifest.lead_s.default
    taken_s = []
    for _ in range(N_WARMUP_RUNS + N_TIMED_RUNS):
        t_start = clock.now()
        backend.step(window, lead_s)
        taken_s.append(clock.now() - t_start)
        timed_s = taken_s[N_WARMUP_RUNS:]
        if len(timed_s) == N_HOPELESS_RUNS and min(timed_s) > bundle.manifest.hop_s / 2:
            break
    backend.reset()
    return timed_s


def _full_window(bundle: DecoderBundle) -> TokenWindow:
    """Make as many tokens as the largest bucket holds, spread evenly over units and the bin."""
    n_tokens = bundle.manifest.token_buckets[-1]
    rows = np.array(sorted(set(bundle.row_of_key.values())), np.int32)
    return TokenWindow(
        unit=np.resize(rows, n_tokens),
        t_rel=np.linspace(0.0, bundle.manifest.bin_s, n_tokens, dtype=np.float32),
        count=np.ones(n_tokens, np.float32),
        t_window=0.0,
    )


def _too_slow(bundle: DecoderBundle, name: str, p99_s: float) -> str:
    hop_ms = bundle.manifest.hop_s * 1e3
    return (
        f"{bundle.manifest.name!r} is too slow for its hop on {name}: p99 of a step at "
        f"{bundle.manifest.token_buckets[-1]} tokens is {p99_s * 1e3:.3g} ms, half its hop of "
        f"{hop_ms:.3g} ms is {hop_ms / 2:.3g} ms; a hop of {math.ceil(2 * p99_s * 1e3)} ms would do"
    )
