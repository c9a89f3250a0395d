"""R2 = 1 - SSE/SST per dimension, SST about the mean over what is scored."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.messages import Float64s


def r2_score(decoded: npt.NDArray[np.floating], actual: npt.NDArray[np.floating]) -> list[float]:
    """Score decodes.

    Args:
        decoded: (n, dims).
        actual: (n, dims), NaN where not scored.

    Returns:
        One number per dimension; NaN where the behaviour does not vary.
    """
    known = np.isfinite(actual).all(axis=1)
    if np.count_nonzero(known) < 2:
        return [float("nan")] * actual.shape[1]
    wanted, given = actual[known].astype(np.float64), decoded[known].astype(np.float64)
    found: list[float] = r2_of_sums(r2_columns(given, wanted).sum(axis=0)).tolist()
    return found


def r2_columns(decoded: npt.NDArray[np.floating], actual: npt.NDArray[np.floating]) -> Float64s:
    """(n, 4, dims): count, value, its square and squared error, whose sums give R2."""
    # Centred first: the sums of squares of far-off values lose their digits.
    centred = actual - actual.mean(axis=0)
    columns = [np.ones_like(actual), centred, np.square(centred), np.square(decoded - actual)]
    return np.stack(columns, axis=1)


def r2_of_sums(sums: Float64s) -> Float64s:
    """R2 from summed columns, (..., 4, dims) -> (..., dims); NaN where nothing varies."""
    n, total, squares, error = (sums[..., i, :] for i in range(4))
    sst = squares - np.square(total) / n
    r2: Float64s = np.where(sst > 0, 1.0 - error / np.where(sst > 0, sst, 1.0), np.nan)
    return r2
