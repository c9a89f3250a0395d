"""How well a decoder does on the test part, and what a Wiener filter does with the same seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from calibration.adaptation.material import Material
from calibration.baselines import HELD_OUT_OF_TRAIN, HISTORY_S, RIDGES, ridge_weights, with_history
from calibration.scoring import r2_score, score_output
from decoders.streaming.tuning import counts_matrix
from export.backends import Backend
from export.bundle import DecoderBundle
from streams.messages import Float64s, Int32s, TokenWindow
from streams.sessions.session import in_intervals

LEAD_IN_S = 300.0
"""As a daemon that has run since calibration would: drift has been followed for so long."""

WindowOf = Callable[[int, Int32s], TokenWindow]
"""The tokens of a bin, with (U,) rows of the session's units, -1 where unknown."""


def decode(
    backend: Backend,
    material: Material,
    row_of: Int32s,
    window_of: WindowOf,
    lead_in_s: float = LEAD_IN_S,
) -> dict[str, Float64s]:
    """Decode the test part through the exported graph, causally, after a lead-in.

    Args:
        backend: with zero memory.
        material: the session.
        row_of: (U,) the table's row of each unit, -1 where unknown.
        window_of: cuts what the backend takes.
        lead_in_s: decoded before the test part, to fill the memory.

    Returns:
        Per output (n_bins, dims), NaN outside the test part.
    """
    n_bins = material.recording.n_bins
    scored = in_intervals(material.ends_s, material.scored)
    first = max(0, material.recording.test.first - round(lead_in_s / material.hop_s))
    values: dict[str, Float64s] = {}
    for i in range(first, material.recording.test.last):
        answer = backend.step(window_of(i, row_of), lead_s=0.0)
        for name, value in answer.items() if scored[i] else ():
            values.setdefault(name, np.full((n_bins, len(value)), np.nan))[i] = value
    return values


def bins_of(material: Material) -> WindowOf:
    """The bins that the session was cut into."""
    tokens = material.recording.tokens

    def window(i_bin: int, row_of: Int32s) -> TokenWindow:
        held = slice(int(tokens.offsets[i_bin]), int(tokens.offsets[i_bin + 1]))
        row = row_of[tokens.unit[held]]
        known = row >= 0
        return TokenWindow(row[known], tokens.t_rel[held][known], tokens.count[held][known], 0.0)

    return window


def measure(material: Material, values: Mapping[str, Float64s]) -> dict[str, list[float]]:
    """R2 per dimension of each output on the test part; for classes the share that is right."""
    targets = material.recording.targets[0].astype(np.float64)
    found: dict[str, list[float]] = {}
    for out in material.outputs:
        if out.name not in values:
            continue
        decoded, actual = values[out.name], targets[:, out.target]
        scored = np.isfinite(decoded).all(axis=1) & np.isfinite(actual).all(axis=1)
        if out.classes:
            right = decoded[scored].argmax(axis=1) == actual[scored][:, 0]
            found[out.name] = [float(right.mean())]
        else:
            found[out.name] = r2_score(decoded[scored], actual[scored])
    return found


def verify(material: Material, values: Mapping[str, Float64s]) -> dict[str, Any] | None:
    """The manifest's `verification`: R2 of each continuous output with its interval.

    Raises:
        CalibrationError: nothing in the test part can be scored.
    """
    t_s = material.ends_s
    scored = in_intervals(t_s, material.scored)
    config, session = material.config, material.session
    scores = {
        choice.name: score_output(
            values[choice.name][scored],
            np.asarray(t_s[scored] + choice.lag_s, np.float64),
            session.signal(choice.behavior),
            session,
            config.sessions.max_gap_s,
        )
        for choice in config.outputs
        if not choice.classes
    }
    if not scores:
        return None
    n_trials = [held.n_blocks if held.blocks == "trials" else 0 for held in scores.values()]
    return {
        "r2": {name: held.r2 for name, held in scores.items()},
        "ci": {name: held.ci for name, held in scores.items()},
        "n_trials": min(n_trials),
        "seconds": round(float(np.count_nonzero(scored)) * material.hop_s, 6),
    }


def wiener(material: Material) -> dict[str, Float64s]:
    """A causal ridge filter on 1 s of counts, fitted on the labelled bins alone.

    Returns:
        Per continuous output (n_bins, dims), NaN outside the test part.
    """
    part, test = material.recording.train, material.recording.test
    n_lags = round(HISTORY_S / material.hop_s)
    counts = counts_matrix(material.recording.tokens, len(material.recording.unit_keys))
    targets = material.targets[part.first : part.last]
    known = np.isfinite(targets).all(axis=1)
    history, targets = with_history(counts[part.first : part.last], n_lags)[known], targets[known]
    weights = _best_ridge(history, targets)
    first = max(0, test.first - n_lags)
    decoded = with_history(counts[first : test.last], n_lags) @ weights.astype(np.float32)
    scored = in_intervals(material.ends_s, material.scored)[first : test.last]
    values: dict[str, Float64s] = {}
    for out in material.outputs:
        if not out.classes:
            path = np.full((len(counts), out.answer.stop - out.answer.start), np.nan)
            path[first : test.last][scored] = decoded[scored][:, out.target]
            values[out.name] = path
    return values


def _best_ridge(history: np.ndarray, targets: Float64s) -> np.ndarray:
    n_fitted = max(1, round(len(history) * (1.0 - HELD_OUT_OF_TRAIN)))
    fits = ridge_weights(history[:n_fitted], targets[:n_fitted], RIDGES)
    scale = targets.std(axis=0) + 1e-12
    errors = [np.square((history[n_fitted:] @ w - targets[n_fitted:]) / scale).mean() for w in fits]
    return ridge_weights(history, targets, (RIDGES[int(np.argmin(errors))],))[0]


def shuffled(row_of: Int32s, seed: int) -> Int32s:
    """Every unit with the row of another."""
    order = np.random.default_rng(seed).permutation(len(row_of))
    mixed = row_of.copy()
    mixed[order] = row_of[np.roll(order, 1)]
    return mixed


def rows_in(bundle: DecoderBundle, keys: Sequence[str]) -> Int32s:
    """The bundle's row of each key, -1 where it has none."""
    return np.array([bundle.row_of_key.get(key, -1) for key in keys], np.int32)
