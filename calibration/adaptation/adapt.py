"""`spikeloop adapt`: a decoder for today's neurons from some labelled seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibration.adaptation.adapted import Adapt, Adapted, Adapter, Options, write_child
from calibration.adaptation.calibration_data import CalibrationData, prepare
from calibration.adaptation.closed_form import adapt_closed_form
from calibration.adaptation.reference import reference_for
from calibration.adaptation.scores import decode, measure, shuffled, verify, wiener
from calibration.choices import choice_of, rows_in
from calibration.errors import CalibrationError
from decoders.config import DEFAULT_FAMILY, POYO_FAMILY
from decoders.training.reading import Say, say_notes, say_on_stderr
from decoders.training.recordings import longest_silence_s
from export.backends.onnxruntime_cpu import OnnxruntimeBackend
from export.bundle import DecoderBundle, open_bundle
from export.graphs.run_fields import token_buckets
from streams.clock import MonotonicClock
from streams.sessions.reading import read_session


def _streaming(bundle: DecoderBundle, data: CalibrationData, options: Options) -> Adapted:
    from calibration.adaptation.gradient.streaming import adapt_streaming

    return adapt_streaming(bundle, data, options)


def _poyo(bundle: DecoderBundle, data: CalibrationData, options: Options) -> Adapted:
    from calibration.adaptation.gradient.poyo import adapt_poyo

    return adapt_poyo(bundle, data, options)


ADAPTERS: dict[str, Adapter] = {
    DEFAULT_FAMILY: Adapter(_streaming, adapt_closed_form),
    POYO_FAMILY: Adapter(_poyo, by_name=True),
}
"""Adaptation of each decoder family that has one."""


def adapt(
    bundle_path: Path,
    session_path: Path,
    *,
    out: Path,
    seconds: float = 60.0,
    start_s: float | None = None,
    same_array: bool = False,
    test: str | None = "last:0.2",
    gradient: bool = True,
    unfreeze: bool = False,
    follow_drift: bool = True,
    seed: int = 0,
    sessions_config: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Say = say_on_stderr,
    verification: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Adapt a decoder to a new session and write it as a bundle with the same graph.

    Learns unit embeddings and the session vector (unit identification). They start in closed form
    from each unit's activity, then take gradient steps until held-out trials gain no more. Without
    gradient all is in closed form, and neither torch nor the training is needed.

    Args:
        bundle_path: the decoder.
        session_path: the new session's NWB.
        out: directory to write; must not exist.
        seconds: how much to learn from.
        start_s: its begin; the first label if None.
        same_array: unit keys name the same channels as they did for the decoder.
        test: the part that is scored and never learnt from: `last:SHARE` or `START-STOP,...`;
            None for none.
        gradient: take gradient steps (torch); False stays with the closed form.
        unfreeze: also train the whole network, if held-out trials gain by it. The bundle then has
            a graph of its own, and `n_steps_unfrozen` is not 0.
        follow_drift: subtract, without labels, how far the latents' mean over the last two
            minutes has moved since calibration.
        seed: the same seed gives the same bundle.
        sessions_config: a TOML file whose `[sessions]` replaces the training's.
        facts: further entries for the manifest's `training`, JSON-able.
        on_progress: told steps done, and steps at most; both are equal once scoring begins.
        on_note: hears about mended data and unit keys that cannot be trusted.
        verification: the manifest's, where `test` is None and the trials were scored otherwise.

    Returns:
        JSON-able: `adapt_s`; `outputs.NAME` with `r2`, `r2_before`, `wiener_r2`, `shuffled_r2` on
        the test part, per dimension (`accuracy...` for classes); facts about the learning.

    Raises:
        CalibrationError: the session cannot serve; see `prepare`.
        export.errors.ExportError: the bundle is refused, or `out` cannot be written.
        streams.errors.StreamsError: the session cannot be read.
    """
    if Path(out).exists():
        raise CalibrationError(f"{out} exists, and a bundle is never changed; choose another name")
    bundle = open_bundle(Path(bundle_path))
    adapter, clock = _adapter_of(bundle), MonotonicClock()
    learn = _way_of(adapter, bundle, gradient=gradient, unfreeze=unfreeze)
    session = read_session(session_path, choice_of(bundle, sessions_config, to_learn=True))
    say_notes([session], on_note, same_array=same_array)
    t_start = clock.now()
    data = prepare(bundle, session, seconds, start_s, test, by_name=adapter.by_name)
    options = Options(same_array, unfreeze, follow_drift, seed, on_progress)
    found = learn(bundle, data, options)
    if on_progress is not None:
        on_progress(found.n_steps, found.n_steps)
    adapt_s = round(clock.now() - t_start, 3)
    told = write_adapted(Path(out), bundle, data, found, seed, facts, verification)
    return {"adapt_s": adapt_s, **told}


def _adapter_of(bundle: DecoderBundle) -> Adapter:
    manifest = bundle.manifest
    if manifest.family not in ADAPTERS:
        raise CalibrationError(
            f"decoder {manifest.name!r} of family {manifest.family!r} cannot be adapted: "
            f"families that can are {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[manifest.family]


def _way_of(adapter: Adapter, bundle: DecoderBundle, *, gradient: bool, unfreeze: bool) -> Adapt:
    if gradient:
        import torch

        torch.set_num_threads(1)
        return adapter.gradient
    if unfreeze:
        raise CalibrationError("--unfreeze takes gradient steps: leave it or --no-gradient out")
    if adapter.closed_form is None:
        raise CalibrationError(
            f"decoder {bundle.manifest.name!r} of family {bundle.manifest.family!r} has no closed "
            "form: adapt it without --no-gradient"
        )
    return adapter.closed_form


def write_adapted(
    out: Path,
    bundle: DecoderBundle,
    data: CalibrationData,
    found: Adapted,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
    verification: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score an adapted decoder on the test part, if there is one, and write its bundle.

    Args:
        out: directory to write; must not exist.
        bundle: the decoder that it was made from.
        data: the session.
        found: the adapted decoder.
        seed: shuffles units for the control.
        facts: further entries for the manifest's `training`, JSON-able.
        verification: of a session without a test part, where its trials were scored otherwise.

    Returns:
        What `adapt` returns, but for `adapt_s`.

    Raises:
        export.errors.ExportError: `out` cannot be written.
    """
    outputs: dict[str, Any] = {}
    if data.scored:
        outputs, verification = _scores(bundle, found, data, seed)
    learning = _learning(found, data, seed)
    fields = _fields(bundle, data, found, learning) | {"verification": verification}
    # A reference of the decoder before tells nothing about these units.
    fields["training"].pop("agreement", None)
    fields["training"] |= reference_for(bundle, data, verification) | dict(facts or {})
    adapted = write_child(
        out,
        bundle,
        fields,
        graph=found.graph,
        tables=found.tables,
        learnt=found.learnt,
    )
    return {
        "decoder_id": adapted.manifest.name,
        "checksum": adapted.manifest.id,
        "parent_id": adapted.manifest.parent_id,
        "n_units": len(data.session.unit_keys),
        **learning,
        "outputs": outputs,
    }


def _learning(found: Adapted, data: CalibrationData, seed: int) -> dict[str, Any]:
    """Facts about the learning, for the JSON and the manifest."""
    part, hop_s = data.recording.train, data.hop_s
    return {
        "session": data.session.id,
        "seconds": round((part.last - part.first) * hop_s, 6),
        "start_s": round(part.first * hop_s, 6),
        "start": found.start,
        "n_steps": found.n_steps,
        "n_steps_unfrozen": found.n_steps_unfrozen,
        "filter_share": dict(found.filter_share),
        "follows_drift": bool(np.any(found.tables.get("follow", 0.0))),
        "seed": seed,
    }


def _scores(
    bundle: DecoderBundle, found: Adapted, data: CalibrationData, seed: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Scores per output, and the manifest's `verification`."""
    keys, manifest = data.recording.unit_keys, bundle.manifest
    before, names = bundle.graph_path.read_bytes(), [output.name for output in manifest.outputs]
    own = np.arange(len(keys), dtype=np.int32)
    runs = [
        ("r2", found.graph, found.tables, own),
        ("r2_before", before, bundle.tables, rows_in(bundle.row_of_key, keys)),
        ("shuffled_r2", found.graph, found.tables, shuffled(own, seed)),
    ]
    decoded = {
        name: decode(
            OnnxruntimeBackend(run, manifest.graph, held, names),
            data,
            row_of,
            found.window_of,
            found.lead_in_s,
        )
        for name, run, held, row_of in runs
    }
    measures = {name: measure(data, values) for name, values in decoded.items()}
    measures["wiener_r2"] = measure(data, wiener(data))
    outputs: dict[str, Any] = {out.name: {} for out in data.outputs}
    for out in data.outputs:
        for name, held in measures.items():
            if out.name in held:
                told = name.replace("r2", "accuracy") if out.classes else name
                outputs[out.name][told] = held[out.name]
    return outputs, verify(data, decoded["r2"])


def _fields(
    bundle: DecoderBundle, data: CalibrationData, found: Adapted, learning: Mapping[str, Any]
) -> dict[str, Any]:
    """Manifest fields that differ from the base's."""
    said, recording = bundle.manifest, data.recording
    edge_us = round(recording.train.last * data.hop_s * 1e6)
    silence_s = longest_silence_s(data.session.spikes, edge_us)
    rates_hz = found.spikes_per_bin * 1000 / data.config.beat.bin_ms
    buckets = {*said.token_buckets, *token_buckets(float(np.quantile(found.n_tokens, 0.999)))}
    return {
        "session": data.session.id,
        "units": [{"key": key, "row": row} for row, key in enumerate(recording.unit_keys)],
        "stale_after_s": max(said.stale_after_s, 2.0 * silence_s),
        "token_buckets": sorted(buckets),
        "training": dict(said.training)
        | dict(found.training)
        | {
            "unit_rates_hz": dict(zip(recording.unit_keys, rates_hz.tolist(), strict=True)),
            "adaptation": dict(learning),
        },
    }
