"""`spikeloop evaluate`: causal decode through the exported graph and the live tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.choices import choice_of, split_of, target_specs
from calibration.errors import CalibrationError
from calibration.scoring import class_accuracy, r2_score, score_output, scored_intervals
from decoders.training.curves import draw_decodes
from decoders.training.reading import Say, say_notes, say_on_stderr
from export.backends.onnxruntime_cpu import open_cpu
from export.backends.opening import require_parity
from export.backends.table import BACKENDS, Backend, parse_choice
from export.bundle import DecoderBundle, open_bundle
from streams.clock import MonotonicClock
from streams.messages import Float64s, Int32s, SpikeBatch
from streams.sessions.reading import read_session
from streams.sessions.session import Session, in_intervals
from streams.spikes.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Decoded:
    """A session, decoded beat by beat.

    Attributes:
        t_s: (n,) each bin's end, seconds from the session's start.
        values: per output, (n, dims) in physical units.
        decode_ms: (n,) from the start of cutting to the value ready.
        n_tokens: (n,) tokens per beat.
    """

    t_s: Float64s
    values: Mapping[str, Float64s]
    decode_ms: Float64s
    n_tokens: np.ndarray


def evaluate(
    bundle_path: Path,
    session_paths: Sequence[Path],
    *,
    split: str | None = None,
    sessions_config: Path | None = None,
    intervals: Sequence[tuple[float, float]] | None = None,
    figure: Path | None = None,
    lead_s: float | None = None,
    blocks_s: float | None = None,
    against: str | None = None,
    on_note: Say = say_on_stderr,
) -> dict[str, Any]:
    """Decode recordings causally and score the decoder.

    Args:
        bundle_path: the decoder.
        session_paths: NWB files.
        split: each file's scored part, see `scored_intervals`; for None see `split_of`.
        sessions_config: a TOML file whose `[sessions]` replaces the training's.
        intervals: scored seconds; overrides `split`.
        figure: PNG to write, with decoded against actual in the first session.
        lead_s: asked of the decoder; its default if None.
        blocks_s: also score each stretch of this length, under `by_time`.
        against: another backend for the same beats; see `largest_difference` per output.
        on_note: hears about mended data and unit keys that cannot be trusted.

    Returns:
        JSON-able: `outputs.NAME.r2`, a list per dimension, with `ci`, `best_lag_s` and
        `r2_at_best_lag` (for classes `accuracy`), the mean of several sessions; and `sessions`.

    Raises:
        CalibrationError: the scored part holds nothing to score, or no unit is known.
        export.errors.ExportError: the bundle is refused.
        streams.errors.StreamsError: a recording cannot be read.
    """
    bundle = open_bundle(Path(bundle_path))
    backend = open_verified(bundle)
    lead_s = bundle.manifest.lead_s.default if lead_s is None else lead_s
    choice, parts = choice_of(bundle, sessions_config), []
    results: dict[str, dict[str, Any]] = {}
    for path in session_paths:
        session = read_session(path, choice)
        say_notes([session], on_note, same_array=session.id != bundle.manifest.session)
        parts.append(split or split_of(bundle, Path(path)))
        scored = intervals or scored_intervals(parts[-1], session)
        results[session.id] = _evaluate_session(
            bundle, backend, session, scored, lead_s, blocks_s, against, figure
        )
        figure = None  # one picture is enough: the first session's
    return {
        "decoder_id": bundle.manifest.name,
        "checksum": bundle.manifest.id,
        "backend": backend.name,
        "split": [list(pair) for pair in intervals or ()] or "; ".join(dict.fromkeys(parts)),
        "mask": choice.mask,
        "lead_s": lead_s,
        "outputs": _mean_outputs(list(results.values())),
        "sessions": results,
    }


def open_verified(bundle: DecoderBundle) -> Backend:
    """Open a bundle on the CPU, once it has reproduced its parity record.

    Raises:
        export.errors.ExportError: it does not.
    """
    backend = open_cpu(bundle)
    require_parity(bundle, backend)
    return backend


def _evaluate_session(
    bundle: DecoderBundle,
    backend: Backend,
    session: Session,
    scored: Sequence[tuple[float, float]],
    lead_s: float,
    blocks_s: float | None,
    against: str | None,
    figure: Path | None,
) -> dict[str, Any]:
    decoded = decode_scored(bundle, backend, session, scored, lead_s)
    result = _result(bundle, session, decoded, scored, lead_s)
    if blocks_s is not None:
        result["by_time"] = _by_time(bundle, session, decoded, lead_s, blocks_s)
    if against is not None:
        name, precision = parse_choice(against)
        other = BACKENDS[name](bundle, precision)
        again = decode_scored(bundle, other, session, scored, lead_s)
        result["against"] = against
        result["largest_difference"] = largest_difference(decoded, again)
    if figure is not None:
        _draw(figure, bundle, session, decoded, scored, lead_s)
    return result


def decode_scored(
    bundle: DecoderBundle,
    backend: Backend,
    session: Session,
    scored: Sequence[tuple[float, float]],
    lead_s: float,
) -> Decoded:
    """Decode up to the scored part's end, with the memory that the beats before it leave.

    Raises:
        CalibrationError: the decoder knows none of the session's units.
    """
    # Without memory a decode does not depend on the beats before it.
    since_s = 0.0 if bundle.manifest.graph.memory else min(start_s for start_s, _ in scored)
    until_s = max(stop_s for _, stop_s in scored)
    return decode_session(bundle, backend, session, until_s, lead_s, since_s=since_s)


def decode_session(
    bundle: DecoderBundle,
    backend: Backend,
    session: Session,
    until_s: float,
    lead_s: float,
    *,
    since_s: float = 0.0,
) -> Decoded:
    """Decode every beat after `since_s` with the live tokenizer, from zero memory.

    Raises:
        CalibrationError: the decoder knows none of the session's units.
    """
    manifest, clock = bundle.manifest, MonotonicClock()
    hop_us, bin_us = round(manifest.hop_s * 1e6), round(manifest.bin_s * 1e6)
    spikes = known_spikes(session, rows_of(bundle, session))
    tokenizer = Tokenizer(bin_us, rows_of(bundle, session))
    first_us = (round(since_s * 1e6) // hop_us + 1) * hop_us
    ends_us = np.arange(first_us, round(min(until_s, session.duration_s) * 1e6) + 1, hop_us)
    first = np.searchsorted(spikes.t_us, ends_us - bin_us, side="right")
    last = np.searchsorted(spikes.t_us, ends_us, side="right")
    values = {o.name: np.zeros((len(ends_us), o.dims)) for o in manifest.outputs}
    decode_ms, n_tokens = np.zeros(len(ends_us)), np.zeros(len(ends_us), np.int64)
    backend.reset()
    for i, end_us in enumerate(ends_us.tolist()):
        held = slice(first[i], last[i])
        batch = SpikeBatch(spikes.t_us[held], spikes.unit[held], spikes.count[held])
        t_start = clock.now()
        # Cutting is timed too: the loop pays for it.
        window, _ = tokenizer.cut(batch, end_us, end_us * 1e-6)
        answer = backend.step(window, lead_s)
        decode_ms[i], n_tokens[i] = (clock.now() - t_start) * 1e3, len(window)
        for name, value in answer.items():
            values[name][i] = value
    return Decoded(np.asarray(ends_us * 1e-6, np.float64), values, decode_ms, n_tokens)


def largest_difference(one: Decoded, other: Decoded) -> dict[str, float]:
    """Largest difference per output, over all beats and dimensions."""
    return {name: float(np.abs(v - other.values[name]).max()) for name, v in one.values.items()}


def rows_of(bundle: DecoderBundle, session: Session) -> Int32s:
    """Each unit's row in the bundle, -1 where there is none."""
    return np.array([bundle.row_of_key.get(key, -1) for key in session.unit_keys], np.int32)


def known_spikes(session: Session, row_of: Int32s) -> SpikeBatch:
    """Spikes from units that the decoder knows, in order of their stamps.

    Raises:
        CalibrationError: there are none.
    """
    spikes = session.spikes
    known = np.flatnonzero(row_of[spikes.unit] >= 0)
    if not len(known):
        raise CalibrationError(
            f"the decoder knows none of the {len(session.unit_keys)} units of session {session.id} "
            f"({', '.join(session.unit_keys[:3])}, ...): adapt it to this session first"
        )
    order = known[np.argsort(spikes.t_us[known], kind="stable")]
    return SpikeBatch(spikes.t_us[order], spikes.unit[order], spikes.count[order])


def _result(
    bundle: DecoderBundle,
    session: Session,
    decoded: Decoded,
    scored: Sequence[tuple[float, float]],
    lead_s: float,
) -> dict[str, Any]:
    chosen = in_intervals(decoded.t_s, scored)
    if not chosen.any():
        raise CalibrationError(
            f"session {session.id} lasts {session.duration_s:.1f} s: no beat in the scored part"
        )
    t_s, outputs = decoded.t_s[chosen], {}
    for target in target_specs(bundle):
        signal, values = session.signal(target.behavior), decoded.values[target.output][chosen]
        at_s = t_s + lead_s + target.lag_s
        if target.classes:
            share, n = class_accuracy(values, at_s, signal)
            outputs[target.output] = {"accuracy": [share], "n": n}
        else:
            outputs[target.output] = asdict(score_output(values, at_s, signal, session))
    p50, p99 = np.percentile(decoded.decode_ms[chosen], (50, 99)).tolist()
    return {
        "outputs": outputs,
        "seconds": round(float(np.count_nonzero(chosen)) * bundle.manifest.hop_s, 6),
        "tokens_per_beat": float(decoded.n_tokens[chosen].mean()),
        "decode_ms": {"p50": p50, "p99": p99},
        "unknown_units": sum(key not in bundle.row_of_key for key in session.unit_keys),
        "begins_at_s": float(session.provenance.get("begins_at_s", 0.0)),
        "notes": session.provenance.get("skipped", ""),
    }


def _by_time(
    bundle: DecoderBundle, session: Session, decoded: Decoded, lead_s: float, blocks_s: float
) -> list[dict[str, Any]]:
    """R2 for the continuous outputs in each stretch."""
    first_s, last_s = float(decoded.t_s[0]), float(decoded.t_s[-1])
    edges_s = np.arange(first_s // blocks_s, last_s // blocks_s + 1.0) * blocks_s
    told = []
    for start_s in edges_s.tolist():
        inside = in_intervals(decoded.t_s, [(start_s, start_s + blocks_s)])
        r2 = {
            target.output: r2_score(
                decoded.values[target.output][inside],
                session.signal(target.behavior).at(decoded.t_s[inside] + lead_s + target.lag_s),
            )
            for target in target_specs(bundle)
            if not target.classes
        }
        told.append({"start_s": start_s, "n": int(np.count_nonzero(inside)), "r2": r2})
    return [block for block in told if block["n"]]


def _mean_outputs(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A single session's outputs, or each list's mean over several."""
    if len(results) == 1:
        only: dict[str, Any] = results[0]["outputs"]
        return only
    means: dict[str, Any] = {}
    for name, output in results[0]["outputs"].items():
        measure = "accuracy" if "accuracy" in output else "r2"
        columns = [result["outputs"][name][measure] for result in results]
        means[name] = {measure: np.mean(columns, axis=0).tolist()}
    return means


def _draw(
    path: Path,
    bundle: DecoderBundle,
    session: Session,
    decoded: Decoded,
    scored: Sequence[tuple[float, float]],
    lead_s: float,
) -> None:
    chosen = in_intervals(decoded.t_s, scored)
    panels = []
    for target in target_specs(bundle):
        at_s = decoded.t_s[chosen] + lead_s + target.lag_s
        if not target.classes:
            signal = session.signal(target.behavior)
            label = f"{target.output} ({signal.unit})"
            panels.append((label, at_s, decoded.values[target.output][chosen], signal.at(at_s)))
    draw_decodes(path, panels)
