"""Scores on the test part, for the decoder and for a Wiener filter with the same seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from calibration.ridge import HISTORY_S, wiener_weights, with_history
from calibration.scoring import score_outputs
from decoders.streaming.tuning import counts_matrix
from decoders.training.scores import accuracy
from streams.messages import Float64s, Int32s, TokenWindow
from streams.r2 import r2_score
from streams.sessions.session import in_intervals

if TYPE_CHECKING:
    from export.backends.opening import Backend

LEAD_IN_S = 300.0
"""As a daemon that has run since calibration would: drift has been followed for so long."""

WindowOf = Callable[[int, Int32s], TokenWindow]
"""The tokens of a bin, with (U,) rows of the session's units, -1 where unknown."""


def decode(
    backend: Backend,
    data: CalibrationData,
    row_of: Int32s,
    window_of: WindowOf,
    lead_in_s: float = LEAD_IN_S,
) -> dict[str, Float64s]:
    """Decode the test part through the exported graph, causally, after a lead-in.

    Args:
        backend: with zero memory.
        data: the session.
        row_of: (U,) each unit's table row, -1 where unknown.
        window_of: cuts what the backend takes.
        lead_in_s: decoded before the test part, to fill the memory.

    Returns:
        Per output (n_bins, dims), NaN outside the test part.
    """
    n_bins = data.recording.n_bins
    scored = in_intervals(data.ends_s, data.scored)
    first = max(0, data.recording.test.first - round(lead_in_s / data.hop_s))
    values: dict[str, Float64s] = {}
    for i in range(first, data.recording.test.last):
        answer = backend.step(window_of(i, row_of), lead_s=0.0)
        # Beats between scored parts are decoded too, for the memory.
        for name, value in answer.items() if scored[i] else ():
            values.setdefault(name, np.full((n_bins, len(value)), np.nan))[i] = value
    return values


def bins_of(data: CalibrationData) -> WindowOf:
    """The bins that the session was cut into."""
    tokens = data.recording.tokens

    def window(i_bin: int, row_of: Int32s) -> TokenWindow:
        held = slice(int(tokens.offsets[i_bin]), int(tokens.offsets[i_bin + 1]))
        row = row_of[tokens.unit[held]]
        known = row >= 0
        return TokenWindow(row[known], tokens.t_rel[held][known], tokens.count[held][known], 0.0)

    return window


def measure(data: CalibrationData, values: Mapping[str, Float64s]) -> dict[str, list[float]]:
    """R2 per output and dimension on the test part; for classes the share that is right."""
    targets = data.recording.targets[0].astype(np.float64)
    found: dict[str, list[float]] = {}
    for out in data.outputs:
        if out.name not in values:
            continue
        decoded, actual = values[out.name], targets[:, out.target]
        scored = np.isfinite(decoded).all(axis=1) & np.isfinite(actual).all(axis=1)
        if out.classes:
            found[out.name] = [accuracy(decoded[scored], actual[scored][:, 0])]
        else:
            found[out.name] = r2_score(decoded[scored], actual[scored])
    return found


def verify(data: CalibrationData, values: Mapping[str, Float64s]) -> dict[str, Any] | None:
    """The manifest's `verification`: R2 with its interval per continuous output.

    Raises:
        CalibrationError: nothing in the test part can be scored.
    """
    scored = in_intervals(data.ends_s, data.scored)
    decoded = {name: held[scored] for name, held in values.items()}
    gap_s = data.config.sessions.max_gap_s
    scores = score_outputs(data.config.outputs, decoded, data.ends_s[scored], data.session, gap_s)
    if not scores:
        return None
    n_trials = [held.n_blocks if held.blocks == "trials" else 0 for held in scores.values()]
    return {
        "r2": {name: held.r2 for name, held in scores.items()},
        "ci": {name: held.ci for name, held in scores.items()},
        "n_trials": min(n_trials),
        "seconds": round(float(np.count_nonzero(scored)) * data.hop_s, 6),
    }


def wiener(data: CalibrationData) -> dict[str, Float64s]:
    """A causal ridge filter on 1 s of counts, fitted on the labelled bins alone.

    Returns:
        Per continuous output (n_bins, dims), NaN outside the test part.
    """
    part, test = data.recording.train, data.recording.test
    n_lags = round(HISTORY_S / data.hop_s)
    counts = counts_matrix(data.recording.tokens, len(data.recording.unit_keys))
    targets = data.targets[part.first : part.last]
    known = np.isfinite(targets).all(axis=1)
    history, targets = with_history(counts[part.first : part.last], n_lags)[known], targets[known]
    weights = wiener_weights(history, targets)
    first = max(0, test.first - n_lags)
    decoded = with_history(counts[first : test.last], n_lags) @ weights.astype(np.float32)
    scored = in_intervals(data.ends_s, data.scored)[first : test.last]
    values: dict[str, Float64s] = {}
    for out in data.outputs:
        if not out.classes:
            path = np.full((len(counts), out.answer.stop - out.answer.start), np.nan)
            path[first : test.last][scored] = decoded[scored][:, out.target]
            values[out.name] = path
    return values


def shuffled(row_of: Int32s, seed: int) -> Int32s:
    """Give every unit another unit's row."""
    order = np.random.default_rng(seed).permutation(len(row_of))
    mixed = row_of.copy()
    mixed[order] = row_of[np.roll(order, 1)]
    return mixed
