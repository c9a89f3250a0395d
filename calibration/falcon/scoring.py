"""FALCON's score without its package: R2 over each session's masked bins, weighted by variance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.evaluate import decode_session, open_verified
from calibration.falcon.decoders import FittedBundle, open_decoders
from calibration.falcon.names import session_of, tag_of
from calibration.scoring import score_output, scored_intervals
from streams.messages import Float64s
from streams.sessions.falcon import falcon_task, read_falcon
from streams.sessions.session import Session, in_intervals


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """The scored part of a file.

    Attributes:
        decoded: (n, dims).
        actual: (n, dims).
    """

    decoded: Float64s
    actual: Float64s


def evaluate_falcon(
    path: Path, files: Sequence[Path], task_name: str, *, split: str = "all"
) -> dict[str, Any]:
    """Decode FALCON's files from their counts and score them as the benchmark does.

    Args:
        path: a bundle, or a folder with bundles named by FALCON's sessions.
        files: from one task.
        task_name: `m1`, `m2` or `h1`.
        split: each file's scored part, see `scored_intervals`.

    Returns:
        JSON-able: `falcon`, the benchmark's mean and standard deviation over its sessions; R2 of
        each session; each file with R2 per dimension and its interval.

    Raises:
        CalibrationError: a decoder does not fit the task, or nothing is left to score.
        export.errors.ExportError: a bundle is refused.
        streams.errors.StreamsError: a file cannot be read.
    """
    decoders = open_decoders(path, falcon_task(task_name))
    parts: dict[str, list[ScoredFile]] = defaultdict(list)
    told = {}
    for file in sorted(files):
        tag = tag_of(file)
        session = read_falcon(file, decoders.task)
        told[file.stem], scored = _score_file(decoders.of(tag), session, split)
        parts[session_of(tag)].append(scored)
    r2 = {name: weighted_r2(held) for name, held in sorted(parts.items())}
    values = list(r2.values())
    return {
        "falcon": {
            "task": decoders.task.name,
            "R2 Mean": float(np.mean(values)),
            "R2 Std.": float(np.std(values)),
        },
        "sessions": r2,
        "split": split,
        "files": told,
    }


def weighted_r2(parts: Sequence[ScoredFile]) -> float:
    """R2 over all dimensions and parts: 1 - summed SSE / summed SST about each mean."""
    decoded = np.concatenate([part.decoded for part in parts])
    actual = np.concatenate([part.actual for part in parts])
    error = np.square(actual - decoded).sum()
    return float(1.0 - error / np.square(actual - actual.mean(axis=0)).sum())


def _score_file(
    fitted: FittedBundle, session: Session, split: str
) -> tuple[dict[str, Any], ScoredFile]:
    bundle, task = fitted.bundle, fitted.task
    n_unknown = int(np.count_nonzero(fitted.rows(len(session.unit_keys)) < 0))
    backend = open_verified(bundle)
    decoded = decode_session(bundle, backend, session, session.duration_s, fitted.lead_s)
    values = np.concatenate([decoded.values[name] for name in fitted.outputs], axis=1)
    chosen = in_intervals(decoded.t_s, scored_intervals(split, session))
    signal = session.signal(task.behavior)
    actual = signal.at(decoded.t_s)
    known = chosen & np.isfinite(actual).all(axis=1)
    score = score_output(values[chosen], decoded.t_s[chosen], signal, session)
    told = {"decoder_id": bundle.manifest.name, "checksum": bundle.manifest.id}
    return {**told, "unknown_units": n_unknown, **asdict(score)}, ScoredFile(
        values[known], actual[known]
    )
