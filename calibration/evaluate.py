"""`spikeloop evaluate`: causal decode through the exported graph and the live tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.choices import TargetSpec, choice_of, rows_in, split_of, target_specs
from calibration.errors import CalibrationError
from calibration.scoring import class_accuracy, score_output, scored_intervals
from decoders.training.curves import draw_decodes
from decoders.training.reading import Say, say_notes, say_on_stderr
from export.backends.onnxruntime_cpu import open_cpu
from export.backends.opening import require_parity
from export.backends.table import BACKENDS, Backend, parse_choice
from export.bundle import DecoderBundle, open_bundle
from streams.clock import MonotonicClock
from streams.messages import Float64s, Int32s, SpikeBatch
from streams.r2 import r2_score
from streams.sessions.reading import read_session
from streams.sessions.session import Behavior, Interval, Session, in_intervals
from streams.spikes.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Decoded:
    """A session, decoded beat by beat.

    Attributes:
        bundle: the decoder.
        session: the recording.
        lead_s: asked of the decoder.
        t_s: (n,) each bin's end, seconds from the session's start.
        values: per output, (n, dims) in physical units.
        decode_ms: (n,) from the start of cutting to the value ready.
        n_tokens: (n,) tokens per beat.
    """

    bundle: DecoderBundle
    session: Session
    lead_s: float
    t_s: Float64s
    values: Mapping[str, Float64s]
    decode_ms: Float64s
    n_tokens: np.ndarray

    def outputs(self, chosen: np.ndarray) -> Iterator[Compared]:
        """Each output in the (n,) chosen beats, beside the behaviour that it estimates."""
        for target in target_specs(self.bundle):
            at_s = self.t_s[chosen] + self.lead_s + target.lag_s
            values = self.values[target.output][chosen]
            yield Compared(target, values, at_s, self.session.signal(target.behavior))

    def beats_in(self, scored: Sequence[Interval]) -> np.ndarray:
        """(n,) bool, the beats in the scored part.

        Raises:
            CalibrationError: there are none.
        """
        chosen = in_intervals(self.t_s, scored)
        if not chosen.any():
            raise CalibrationError(
                f"session {self.session.id} lasts {self.session.duration_s:.1f} s: no beat in the "
                "scored part"
            )
        return chosen


@dataclass(frozen=True, slots=True)
class Compared:
    """One output and its behaviour.

    Attributes:
        target: what the output estimates.
        values: (n, dims) decodes.
        at_s: (n,) the time that each estimates.
        signal: the behaviour.
    """

    target: TargetSpec
    values: Float64s
    at_s: Float64s
    signal: Behavior


def evaluate(
    bundle_path: Path,
    session_paths: Sequence[Path],
    *,
    split: str | None = None,
    sessions_config: Path | None = None,
    figure: Path | None = None,
    blocks_s: float | None = None,
    against: str | None = None,
    on_note: Say = say_on_stderr,
    on_session: Callable[[int, Path], None] = lambda i, path: None,
) -> dict[str, Any]:
    """Decode recordings causally and score the decoder.

    Args:
        bundle_path: the decoder.
        session_paths: NWB files.
        split: each file's scored part, see `scored_intervals`; for None see `split_of`.
        sessions_config: a TOML file whose `[sessions]` replaces the training's.
        figure: PNG to write, with decoded against actual in the first session.
        blocks_s: also score each stretch of this length, under `by_time`.
        against: another backend for the same beats; adds `largest_difference` per output.
        on_note: hears about mended data and unit keys that cannot be trusted.
        on_session: told each file, counted from 0, before it is decoded.

    Returns:
        JSON-able: `outputs.NAME.r2`, a list per dimension, with `ci`, `best_lag_s` and
        `r2_at_best_lag` (for classes `accuracy`), the mean of several sessions; and `sessions`.

    Raises:
        CalibrationError: the scored part holds nothing to score, or no unit is known.
        export.errors.ExportError: the bundle is refused.
        streams.errors.StreamsError: a recording cannot be read.
    """
    bundle = open_bundle(Path(bundle_path))
    backend, lead_s = open_verified(bundle), bundle.manifest.lead_s.default
    choice = choice_of(bundle, sessions_config)
    parts, results = list[str](), dict[str, dict[str, Any]]()
    for i, path in enumerate(session_paths):
        on_session(i, path)
        session = read_session(path, choice)
        say_notes([session], on_note, same_array=session.id != bundle.manifest.session)
        parts.append(split or split_of(bundle, Path(path)))
        scored = scored_intervals(parts[-1], session)
        decoded = decode_scored(bundle, backend, session, scored, lead_s)
        result = results[session.id] = _result(decoded, scored)
        if blocks_s is not None:
            result["by_time"] = _by_time(decoded, blocks_s)
        if against is not None:
            result |= _against(against, decoded, scored)
        if figure is not None and i == 0:  # one picture is enough
            _draw(figure, decoded, scored)
    return {
        **_named(bundle, backend),
        "split": "; ".join(dict.fromkeys(parts)),
        "mask": choice.mask,
        "lead_s": lead_s,
        "outputs": _mean_outputs(list(results.values())),
        "sessions": results,
    }


def _named(bundle: DecoderBundle, backend: Backend) -> dict[str, str]:
    manifest = bundle.manifest
    return {"decoder_id": manifest.name, "checksum": manifest.id, "backend": backend.name}


def open_verified(bundle: DecoderBundle) -> Backend:
    """Open a bundle on the CPU, once it has reproduced its parity record.

    Raises:
        export.errors.ExportError: it does not.
    """
    backend = open_cpu(bundle)
    require_parity(bundle, backend)
    return backend


def decode_scored(
    bundle: DecoderBundle,
    backend: Backend,
    session: Session,
    scored: Sequence[Interval],
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
    row_of = rows_in(bundle.row_of_key, session.unit_keys)
    spikes, tokenizer = known_spikes(session, row_of), Tokenizer(bin_us, row_of)
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
    ends_s = np.asarray(ends_us * 1e-6, np.float64)
    return Decoded(bundle, session, lead_s, ends_s, values, decode_ms, n_tokens)


def _against(choice: str, decoded: Decoded, scored: Sequence[Interval]) -> dict[str, Any]:
    """The largest difference to another backend per output, over all beats and dimensions."""
    name, precision = parse_choice(choice)
    other = BACKENDS[name](decoded.bundle, precision)
    again = decode_scored(decoded.bundle, other, decoded.session, scored, decoded.lead_s)
    pairs = {name: (values, again.values[name]) for name, values in decoded.values.items()}
    largest = {name: float(np.abs(one - two).max()) for name, (one, two) in pairs.items()}
    return {"against": choice, "largest_difference": largest}


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


def _result(decoded: Decoded, scored: Sequence[Interval]) -> dict[str, Any]:
    bundle, session = decoded.bundle, decoded.session
    chosen, outputs = decoded.beats_in(scored), {}
    for out in decoded.outputs(chosen):
        if out.target.classes:
            share, n = class_accuracy(out.values, out.at_s, out.signal)
            outputs[out.target.output] = {"accuracy": [share], "n": n}
        else:
            score = score_output(out.values, out.at_s, out.signal, session)
            outputs[out.target.output] = asdict(score)
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


def _by_time(decoded: Decoded, blocks_s: float) -> list[dict[str, Any]]:
    """R2 for the continuous outputs in each stretch."""
    first_s, last_s = float(decoded.t_s[0]), float(decoded.t_s[-1])
    edges_s = np.arange(first_s // blocks_s, last_s // blocks_s + 1.0) * blocks_s
    told = []
    for start_s in edges_s.tolist():
        inside = in_intervals(decoded.t_s, [(start_s, start_s + blocks_s)])
        r2 = {
            out.target.output: r2_score(out.values, out.signal.at(out.at_s))
            for out in decoded.outputs(inside)
            if not out.target.classes
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


def _draw(path: Path, decoded: Decoded, scored: Sequence[Interval]) -> None:
    panels = [
        (f"{out.target.output} ({out.signal.unit})", out.at_s, out.values, out.signal.at(out.at_s))
        for out in decoded.outputs(decoded.beats_in(scored))
        if not out.target.classes
    ]
    draw_decodes(path, panels)
