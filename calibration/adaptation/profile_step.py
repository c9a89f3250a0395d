"""One step on unit profiles in closed form: what decoding tells of units beyond their tuning.

For small changes of the profiles the answers change linearly. So the most probable change, given
the decoder's errors in the labelled seconds and how well tuning tells each profile, solves one
linear system (a Gauss-Newton step). It stands in for gradient steps on embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.linear_filter import normalised_targets
from calibration.adaptation.sensitivity import Sensitivity
from streams.messages import Float64s

TRUST = (1.0, 3.0, 10.0)
"""Factors on the profiles' variance; held-out trials choose."""
UNTESTED_TRUST = 1.0
LEAST_ERROR, LEAST_VARIANCE = 0.05, 1e-9
MOST_ALIKE = 40


@dataclass(frozen=True, slots=True)
class ProfileStep:
    """A change of the profiles.

    Attributes:
        change: (U, P - 1) of their slopes.
        decoded: (B, n_dims) held-out answers after changes that were learnt without them.
        trust: the factor on the profiles' variance, mean over how likely each is.
    """

    change: Float64s
    decoded: Float64s
    trust: float


def profile_step(
    found: Sensitivity,
    decoded: Float64s,
    covariance: Float64s,
    data: CalibrationData,
    folds: np.ndarray,
) -> ProfileStep:
    """Solve for the most probable change.

    Args:
        found: the answers' slopes, at B moments.
        decoded: (B, n_dims) answers, on the decoder's scale; where there are folds, of tables that
            were made without the moment's trial.
        covariance: (U, P - 1, P - 1) of the slopes, as far as tuning tells them.
        data: the session.
        folds: (n_folds, B) bool, moments that each leaves out; none where nothing is held out.
    """
    system = _System(found, decoded, covariance, data)
    if not len(folds):
        change = system.change(np.ones(len(decoded), np.bool_), UNTESTED_TRUST)
        return ProfileStep(change, decoded, UNTESTED_TRUST)
    tested = np.asarray(folds.any(axis=0))
    corrected = [system.corrected(folds, tested, trust) for trust in TRUST]
    losses = np.array([np.square(left[tested]).sum() for left in corrected])
    # Few trials seldom tell them apart, so that each counts by how likely it makes them.
    likely = np.exp(-0.5 * (losses - losses.min()))
    likely /= likely.sum()
    after = decoded.copy()
    mean_left = np.tensordot(likely, np.stack(corrected), axes=1)
    after[:, system.dims] += (system.error - mean_left) * system.noise_root
    trust = float(np.exp(likely @ np.log(TRUST)))
    return ProfileStep(system.change(tested, trust), after, trust)


def alike(error: Float64s) -> Float64s:
    """(n_dims,) how many (B, n_dims) neighbouring errors tell as much as one independent one."""
    centred = error - error.mean(axis=0)
    power = np.square(centred).sum(axis=0) + 1e-12
    total, going = np.ones(error.shape[1]), np.ones(error.shape[1], np.bool_)
    for lag in range(1, min(len(error) // 2, MOST_ALIKE)):
        correlation = (centred[lag:] * centred[:-lag]).sum(axis=0) / power
        going &= correlation > 0.0
        total += 2.0 * np.where(going, correlation, 0.0)
    return total


class _System:
    """Errors, their weights, and the kernel between moments; rows are moments times dimensions.

    Attributes:
        dims: (d,) the continuous outputs' columns.
        noise_root: (d,) standard deviation by which errors are divided.
    """

    def __init__(
        self, found: Sensitivity, decoded: Float64s, covariance: Float64s, data: CalibrationData
    ) -> None:
        continuous = [out.answer for out in data.outputs if not out.classes]
        self.dims = np.array([i for part in continuous for i in range(part.start, part.stop)], int)
        targets = normalised_targets(data)[data.recording.train.first + found.at]
        error = (targets - decoded)[:, self.dims]
        # Neighbouring errors are alike, so that each tells less.
        noise = np.maximum(np.square(error).mean(axis=0), LEAST_ERROR) * alike(error)
        self.noise_root = np.sqrt(noise)
        self.error = error / self.noise_root
        self.root = np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(covariance.shape[1]))
        slopes = found.slopes[:, self.dims] / self.noise_root[:, None, None].astype(np.float32)
        along = np.einsum("bdup,upq->bduq", slopes, self.root.astype(np.float32), optimize=True)
        self.rows = along.reshape(error.size, -1)
        self.kernel = self.rows @ self.rows.T

    def corrected(self, folds: np.ndarray, tested: np.ndarray, trust: float) -> Float64s:
        """(B, d) errors after a change; each fold's by a change that was learnt without it."""
        left: Float64s = self.error.copy()
        for fold in folds:
            rows, coefficients = self._solve(tested & ~fold, trust)
            told = self.kernel[np.ix_(self._rows(fold), rows)] @ coefficients
            left[fold] -= told.reshape(-1, self.error.shape[1])
        return left

    def change(self, chosen: np.ndarray, trust: float) -> Float64s:
        """(U, P - 1) change of the slopes that is learnt at (B,) moments."""
        if not self.error.size:
            return np.zeros(self.root.shape[:2])
        rows, coefficients = self._solve(chosen, trust)
        along = (coefficients @ self.rows[rows]).reshape(self.root.shape[:2])
        changed: Float64s = np.einsum("upq,uq->up", self.root, along)
        return changed

    def _solve(self, chosen: np.ndarray, trust: float) -> tuple[np.ndarray, Float64s]:
        """The rows of (B,) moments, and their coefficients."""
        rows = self._rows(chosen)
        matrix = np.float32(trust) * self.kernel[np.ix_(rows, rows)]
        matrix[np.diag_indices_from(matrix)] += 1.0
        factor = linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
        wanted = self.error.reshape(-1)[rows].astype(np.float32)
        solved = linalg.cho_solve(factor, wanted, check_finite=False)
        return rows, np.asarray(trust * solved, np.float64)

    def _rows(self, chosen: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.repeat(chosen, self.error.shape[1]))
