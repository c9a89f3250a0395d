"""R2 and accuracy, for trainings and for `calibration.scoring`; without torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def r2_score(decoded: npt.NDArray[np.floating], actual: npt.NDArray[np.floating]) -> list[float]:
    """R2 = 1 - SSE/SST per dimension, SST about the scored rows' mean.

    Args:
        decoded: (n, dims).
        actual: (n, dims), NaN where not scored.

    Returns:
        One number per dimension; NaN where the behaviour does not vary.
    """
    known = np.isfinite(actual).all(axis=1)
    wanted, given = actual[known].astype(np.float64), decoded[known].astype(np.float64)
    if len(wanted) < 2:
        return [float("nan")] * actual.shape[1]
    sse = np.square(given - wanted).sum(axis=0)
    sst = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    return [float(1 - e / t) if t > 0 else float("nan") for e, t in zip(sse, sst, strict=True)]


def accuracy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float:
    """Share of bins with the right class as the most probable one."""
    known = np.isfinite(labels)
    if not known.any():
        return float("nan")
    return float((logits[known].argmax(axis=-1) == labels[known]).mean())
