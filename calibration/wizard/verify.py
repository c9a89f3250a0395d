"""Step 4: held-out trials, against yesterday's decoder, a Wiener filter and a shuffled control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from calibration.baselines import RIDGES, ridge_weights, with_history
from calibration.evaluate import decode_session
from calibration.scoring import blocks_of, parse_split
from calibration.wizard.aims import Aim, aims_of
from calibration.wizard.errors import STREAM, WizardError
from calibration.wizard.face import Page
from calibration.wizard.run import Run
from calibration.wizard.verify_page import line_of, table_of
from export.bundle import DecoderBundle, open_bundle
from export.onnxruntime_backend import open_cpu
from streams.messages import Float64s
from streams.sessions.reading import read_session
from streams.sessions.session import Session, in_intervals

STEP = "verify"
TITLE = "Is it any good?"
HISTORY_S = 1.0
N_RESAMPLES = 2000
HELD_BACK = 0.2


def run(held: Run) -> dict[str, Any]:
    """Decode the held-out trials in four ways and score each.

    Raises:
        WizardError: the held-out part cannot be scored.
    """
    held.face.ask(Page(STEP, TITLE, Text("decoding the held-out trials ..."), ""), (), wait_s=0.0)
    collected, made = held.result("collect"), held.result("adapt")
    session = read_session(Path(collected["session"]))
    result = verified(
        open_bundle(held.base),
        open_bundle(Path(made["bundle"])),
        session,
        collected["test"],
        held.folder / "verify.npz",
        held.config.calibration.seed,
    )
    held.face.ask(Page(STEP, TITLE, table_of(result), line_of(result)))
    return result


def verified(
    yesterday: DecoderBundle,
    today: DecoderBundle,
    session: Session,
    test: str,
    traces: Path,
    seed: int,
) -> dict[str, Any]:
    """R2 with 95 % intervals over trials of four decoders, and paired differences.

    Args:
        yesterday: the base decoder.
        today: the adapted one.
        session: the recording.
        test: its held-out part.
        traces: where the decodes are kept for figures (npz).
        seed: of shuffling and resampling.

    Raises:
        WizardError: the held-out part cannot be scored.
    """
    aim = aims_of(today)[0]
    scored = parse_split(test, session.duration_s)
    until_s = scored[-1][1]
    mixed = np.random.default_rng(seed).permutation(len(session.unit_keys))
    keys = tuple(session.unit_keys[i] for i in mixed)
    t_s, own = _decoded(today, session, aim, until_s)
    decodes = {
        "today": own,
        "yesterday": _decoded(yesterday, session, aim, until_s)[1],
        "wiener": _wiener(session, aim, t_s, scored),
        "shuffled": _decoded(today, replace(session, unit_keys=keys), aim, until_s)[1],
    }
    actual = session.signal(aim.behavior).at(t_s)
    chosen = in_intervals(t_s, scored) & np.isfinite(actual).all(axis=1)
    _require_movement(actual[chosen], aim, test)
    held = {name: values[chosen] for name, values in decodes.items()}
    np.savez_compressed(traces, t_s=t_s[chosen], actual=actual[chosen], **held)  # type: ignore[arg-type]
    return _scores(session, t_s[chosen], actual[chosen], held, aim, test, seed)


def _require_movement(actual: Float64s, aim: Aim, test: str) -> None:
    if len(actual) < 2 or not (np.ptp(actual, axis=0) > 0).all():
        raise WizardError(
            f"{aim.behavior} is not known, or does not vary, in the held-out {test} s", STREAM
        )


def _decoded(
    bundle: DecoderBundle, session: Session, aim: Aim, until_s: float
) -> tuple[Float64s, Float64s]:
    """Times and (n, dims) decodes, causal, through the exported graph."""
    known = np.array([key in bundle.row_of_key for key in session.unit_keys])
    if not known[session.spikes.unit].any():
        n = int(until_s / bundle.manifest.hop_s)
        ends_s: Float64s = (np.arange(n, dtype=np.float64) + 1.0) * bundle.manifest.hop_s
        return ends_s, np.zeros((n, aim.dims))
    decoded = decode_session(bundle, open_cpu(bundle), session, until_s, 0.0)
    return decoded.t_s, decoded.values[aim.output]


def _wiener(
    session: Session, aim: Aim, t_s: Float64s, scored: list[tuple[float, float]]
) -> Float64s:
    """Ridge on a second of counts, fitted outside the held-out part."""
    hop_s = float(t_s[0])
    n_units, n_bins = len(session.unit_keys), len(t_s)
    i_bin = np.ceil(session.spikes.t_us / (hop_s * 1e6)).astype(np.int64) - 1
    inside = (i_bin >= 0) & (i_bin < n_bins)
    cell = i_bin[inside] * n_units + session.spikes.unit[inside]
    counts = np.bincount(cell, session.spikes.count[inside], n_bins * n_units)
    used = np.flatnonzero(counts.reshape(n_bins, n_units).any(axis=0))
    history = with_history(counts.reshape(n_bins, n_units)[:, used], round(HISTORY_S / hop_s))
    target = session.signal(aim.behavior).at(t_s)
    learnt = np.flatnonzero(np.isfinite(target).all(axis=1) & ~in_intervals(t_s, scored))
    fitted, left = np.split(learnt, [round(len(learnt) * (1.0 - HELD_BACK))])
    candidates = ridge_weights(history[fitted], target[fitted], RIDGES)
    errors = [np.square(history[left] @ w - target[left]).mean() for w in candidates]
    chosen = RIDGES[int(np.argmin(errors))]
    weights = ridge_weights(history[learnt], target[learnt], (chosen,))[0]
    decoded: Float64s = history.astype(np.float64) @ weights
    return decoded


def _scores(
    session: Session,
    t_s: Float64s,
    actual: Float64s,
    decodes: Mapping[str, Float64s],
    aim: Aim,
    test: str,
    seed: int,
) -> dict[str, Any]:
    block, kind = blocks_of(session, t_s)
    drawn = {name: _resampled(values, actual, block, seed) for name, values in decodes.items()}
    mean = {name: drawn[name].mean(axis=1) for name in drawn}
    return {
        "output": aim.output,
        "unit": aim.unit,
        "test": test,
        "seconds": len(t_s) * float(np.median(np.diff(t_s))),
        "blocks": kind,
        "n_blocks": len(np.unique(block)),
        "speed": speed_share(decodes["today"], actual, block, seed) if aim.is_velocity else None,
        "decoders": {
            name: {
                "r2": _r2(values, actual).tolist(),
                "ci": np.quantile(drawn[name][1:], (0.025, 0.975), axis=0).T.tolist(),
                "mean": float(mean[name][0]),
                "mean_ci": np.quantile(mean[name][1:], (0.025, 0.975)).tolist(),
            }
            for name, values in decodes.items()
        },
        "gains": {
            name: {
                "mean": float(mean["today"][0] - mean[name][0]),
                "ci": np.quantile((mean["today"] - mean[name])[1:], (0.025, 0.975)).tolist(),
            }
            for name in decodes
            if name != "today"
        },
    }


def _r2(decoded: Float64s, actual: Float64s) -> Float64s:
    error = np.square(decoded - actual).sum(axis=0)
    spread = np.square(actual - actual.mean(axis=0)).sum(axis=0)
    r2: Float64s = 1.0 - error / spread
    return r2


def speed_share(
    decoded: Float64s, actual: Float64s, block: np.ndarray, seed: int
) -> dict[str, Any]:
    """How fast decodes are, as a share of the movement, and its 95 % interval over blocks.

    The slope of decoded on actual velocity, through rest: an estimate that errs as little as it can
    is too slow, the more so the less it knows.

    Args:
        decoded: (n, dims) velocities.
        actual: (n, dims).
        block: (n,) which trial each belongs to.
        seed: of what is drawn.

    Returns:
        `share`, and `ci`, its low and high end.
    """
    times, sums = _drawn(block, np.stack([decoded * actual, np.square(actual)], axis=1), seed)
    along, squares = np.tensordot(times, sums.sum(axis=2), axes=1).T
    share = along / np.where(squares > 0, squares, np.nan)
    low, high = np.nanquantile(share[1:], (0.025, 0.975))
    return {"share": float(share[0]), "ci": [float(low), float(high)]}


def _drawn(block: np.ndarray, columns: Float64s, seed: int) -> tuple[Float64s, Float64s]:
    """(1 + n, n_blocks) how often a block counts, first once each; (n_blocks, ...) their sums."""
    _, i_block = np.unique(block, return_inverse=True)
    n_blocks = int(i_block.max()) + 1
    sums = np.zeros((n_blocks, *columns.shape[1:]))
    np.add.at(sums, i_block, columns)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), N_RESAMPLES)
    return np.concatenate([np.ones((1, n_blocks)), drawn]), sums


def _resampled(decoded: Float64s, actual: Float64s, block: np.ndarray, seed: int) -> Float64s:
    """(1 + n, dims) R2: of everything, then of blocks drawn anew; a seed gives its draws."""
    centred = actual - actual.mean(axis=0)
    columns = [np.ones_like(actual), centred, np.square(centred), np.square(decoded - actual)]
    times, sums = _drawn(block, np.stack(columns, axis=1), seed)
    n, total, squares, error = np.moveaxis(np.tensordot(times, sums, axes=1), 1, 0)
    spread = squares - np.square(total) / n
    r2: Float64s = 1.0 - error / np.where(spread > 0, spread, np.nan)
    return np.nan_to_num(r2, nan=float(np.nanmin(r2)))
