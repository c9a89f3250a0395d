"""Accuracy of classes; without torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def accuracy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float:
    """Share of bins with the right class as the most probable one."""
    known = np.isfinite(labels)
    if not known.any():
        return float("nan")
    return float((logits[known].argmax(axis=-1) == labels[known]).mean())
