"""Compare the decodes of a recorded run with those made again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from service.redecode.decoders import RecordedDecoders
from service.redecode.reading import RecordedRun, fitting_together, open_run
from service.redecode.replay import Remade, Replay
from streams.wire.schema import Values

DIFFERING_TOLD = 5


@dataclass(slots=True)
class Comparison:
    """Everything that was compared.

    Attributes:
        n_said: decodes that left, those in shadow too.
        n_compared: made again and compared.
        n_same: of these bit for bit the same.
        n_differing: beyond what is allowed: any bit, or the parity bound where backend, library or
            machine are others.
        n_other_values: shaped or safe values that are not those that were said.
        largest: largest difference of a number, output units.
        not_compared: reasons, and for how many decodes.
        by_decoder: decodes compared, by decoder and backend.
        by_reason: decodes compared, by the reason they gave.
        differing: the first that differ.
        first_s, last_s: windows' ends of the first and the last.
    """

    n_said: int = 0
    n_compared: int = 0
    n_same: int = 0
    n_differing: int = 0
    n_other_values: int = 0
    largest: float = 0.0
    not_compared: Counter[str] = field(default_factory=Counter)
    by_decoder: Counter[str] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)
    differing: list[dict[str, Any]] = field(default_factory=list)
    first_s: float | None = None
    last_s: float = 0.0

    def take(self, remade: Remade, *, is_exact: bool, atol: float) -> None:
        """Compare one decode."""
        decode = remade.decode
        self.n_said += 1
        self.first_s = decode.t_window if self.first_s is None else self.first_s
        self.last_s = max(self.last_s, decode.t_window)
        if remade.why_not:
            self.not_compared[remade.why_not] += 1
            return
        self.n_compared += 1
        self.by_decoder[f"{decode.decoder_id} {decode.checksum[:12]} on {decode.backend}"] += 1
        self.by_reason[decode.reason or "ok"] += 1
        is_same = same(remade.value_raw, decode.value_raw)
        is_same_value = remade.value is None or same(remade.value, decode.value)
        self.n_same += is_same
        apart = 0.0 if is_same else distance(remade.value_raw, decode.value_raw)
        self.largest = max(self.largest, apart)
        is_differing = not is_same if is_exact else apart > atol
        self.n_differing += is_differing
        if is_exact:
            self.n_other_values += not is_same_value
        if (is_differing or (is_exact and not is_same_value)) and len(
            self.differing
        ) < DIFFERING_TOLD:
            self.differing.append(
                {
                    "topic": remade.topic,
                    "seq": decode.seq,
                    "beat": decode.beat,
                    "said": {"value_raw": decode.value_raw, "value": decode.value},
                    "remade": {"value_raw": remade.value_raw, "value": remade.value},
                }
            )


@dataclass(frozen=True, slots=True)
class Redecoded:
    """A run that was decoded again.

    Attributes:
        run: the recorded run.
        comparison: of its decodes.
        report: everything that is told, for JSON.
        holds: True if decodes were compared and none differs.
    """

    run: RecordedRun
    comparison: Comparison
    report: dict[str, Any]
    holds: bool


def redecode(path: Path, folders: list[Path], backend: str = "") -> Redecoded:
    """Decode a recorded run again and compare.

    Args:
        path: the run's folder.
        folders: where to look for bundles that are not where they were.
        backend: runs all decoders; "" for what ran them.

    Raises:
        RecordingError: the run cannot be read.
        BundleError, BackendUnavailable: a decoder cannot be opened.
    """
    run = open_run(path)
    decoders = RecordedDecoders(run.facts, folders, backend)
    replay, comparison = Replay(run, decoders.open), Comparison()
    begun_s = opening_s = time.monotonic()
    # A number that was damaged may not fit the network's types: it differs, which is told.
    with fitting_together(path), np.errstate(over="ignore", invalid="ignore"):
        for remade in replay:
            comparison.take(remade, is_exact=decoders.is_exact, atol=decoders.atol)
            if comparison.n_said == 1:
                opening_s = time.monotonic()
    took_s = time.monotonic() - opening_s
    span_s = comparison.last_s - (comparison.first_s or comparison.last_s)
    holds = comparison.n_compared > 0 and not (
        comparison.n_differing or comparison.n_other_values or replay.checks.n_other_tokens
        or (decoders.is_exact and replay.checks.n_other_checkpoints)
    )  # fmt: skip
    report = {
        "run": run.facts["run_id"],
        "began": run.facts["began"],
        "follows": run.facts["follows"],
        "seconds": round(span_s, 3),
        "decodes": comparison.n_said,
        "compared": comparison.n_compared,
        "same": comparison.n_same,
        "differing": comparison.n_differing,
        "other_values": comparison.n_other_values,
        "largest_difference": comparison.largest,
        "bit_for_bit": decoders.is_exact,
        "allowed": 0.0 if decoders.is_exact else decoders.atol,
        "bins_run": replay.checks.n_ran,
        "other_tokens": replay.checks.n_other_tokens,
        "checkpoints": replay.checks.n_checkpoints,
        "other_checkpoints": replay.checks.n_other_checkpoints,
        "not_compared": dict(comparison.not_compared),
        "by_decoder": dict(comparison.by_decoder),
        "by_reason": dict(comparison.by_reason),
        "opening_s": round(opening_s - begun_s, 3),
        "took_s": round(took_s, 3),
        "times_real_time": round(span_s / took_s, 1) if took_s else None,
        "remarks": [*run.remarks, *decoders.remarks],
        "first_differing": comparison.differing,
    }
    return Redecoded(run, comparison, report, holds)


def same(ours: Values, theirs: Values) -> bool:
    """Return True if both are the same, bit for bit: JSON tells each number from its neighbours."""
    return msgspec.json.encode(ours) == msgspec.json.encode(theirs)


def distance(ours: Values, theirs: Values) -> float:
    """Return the largest difference of two decodes' numbers; infinite where one lacks any."""
    largest = 0.0
    for name, wanted in theirs.items():
        found = ours.get(name)
        if (found is None) != (wanted is None):
            return float("inf")
        for a, b in zip(found or (), wanted or (), strict=False):
            if (a is None) != (b is None):
                return float("inf")
            if a is not None and b is not None:
                largest = max(largest, abs(a - b))
    return largest
