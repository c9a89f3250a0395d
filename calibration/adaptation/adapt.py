"""`spikeloop adapt`: a decoder for today's neurons from some labelled seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.child import write_child
from calibration.adaptation.linear_filter import fit_filter
from calibration.adaptation.material import Material, gather
from calibration.adaptation.network import WindowDecoder
from calibration.adaptation.poyo import adapt_poyo
from calibration.adaptation.scores import (
    LEAD_IN_S,
    bins_of,
    decode,
    measure,
    rows_in,
    shuffled,
    verify,
    wiener,
)
from calibration.adaptation.search import search
from calibration.adaptation.second_stage import Unfrozen, second_stage
from calibration.adaptation.starts import Base, load_base, profiles_of
from calibration.choices import choice_of
from calibration.errors import CalibrationError
from decoders.learning.reading import Say, say_notes, say_on_stderr
from decoders.learning.recordings import longest_silence_s
from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.drift import follow_share
from decoders.streaming.step import StepModule
from export.bundle import DecoderBundle, open_bundle
from export.graphs.streaming import streaming_graph, token_buckets
from export.onnxruntime_backend import OnnxruntimeBackend
from streams.clock import MonotonicClock
from streams.sessions.reading import read_session


def adapt(
    bundle_path: Path,
    session_path: Path,
    *,
    out: Path,
    seconds: float = 60.0,
    start_s: float | None = None,
    same_array: bool = False,
    test: str = "last:0.2",
    unfreeze: bool = False,
    follow_drift: bool = True,
    seed: int = 0,
    sessions_config: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Say = say_on_stderr,
) -> dict[str, Any]:
    """Adapt a decoder to a new session and write it as a bundle with the same graph.

    Only unit embeddings and the session vector are learnt (unit identification). They start from
    what each unit's activity tells in closed form and take a few gradient steps, which trials held
    out of the labelled seconds end.

    Args:
        bundle_path: the decoder.
        session_path: NWB of the new session.
        out: directory to write; must not exist.
        seconds: how much to learn from.
        start_s: where that begins, seconds; the first label if None.
        same_array: unit keys name the same channels as they did for the decoder.
        test: the part that is scored and never learnt from: `last:SHARE` or `START-STOP,...`.
        unfreeze: add a second stage in which the whole network learns, if held-out trials gain by
            it; the bundle then has a graph of its own, and the JSON's `n_steps_unfrozen` is not 0.
        follow_drift: let the decoder take away, without labels, by how much its latents' mean over
            the last two minutes has moved since the labelled seconds; else it stays as it is.
        seed: the same seed gives the same bundle.
        sessions_config: a TOML file whose `[sessions]` says what is read (mask, units, trials ...);
            if None, as the decoder was trained.
        on_progress: told steps done, and steps at most.
        on_note: told of what was mended in the file, and of unit keys that cannot be trusted.

    Returns:
        JSON-able: `adapt_s`, the seconds that learning took; `outputs.NAME` with `r2`, `r2_before`,
        `wiener_r2` (the same seconds) and `shuffled_r2`, each a list per dimension, on the test
        part (`accuracy...` for classes); what was learnt from, and how.

    Raises:
        CalibrationError: the session cannot serve; see `gather`.
        export.errors.ExportError: the bundle is refused, or `out` cannot be written.
        streams.errors.StreamsError: the session cannot be read.
    """
    if Path(out).exists():
        raise CalibrationError(f"{out} exists, and a bundle is never changed; choose another name")
    torch.set_num_threads(1)
    bundle = open_bundle(Path(bundle_path))
    session = read_session(session_path, choice_of(bundle, sessions_config, to_learn=True))
    say_notes([session], on_note, same_array=same_array)
    options = Options(same_array, unfreeze, follow_drift, seed, on_progress)
    clock = MonotonicClock()
    if bundle.manifest.family == "poyo":
        if unfreeze:
            raise CalibrationError("of a POYO only embeddings are learnt: adapt without --unfreeze")
        t_start = clock.now()
        material = gather(bundle, session, seconds=seconds, start_s=start_s, test=test)
        found = adapt_poyo(bundle, material, options)
    else:
        base = load_base(bundle)
        t_start = clock.now()
        material = gather(bundle, session, seconds=seconds, start_s=start_s, test=test)
        found = _adapt_streaming(bundle, base, material, options)
    adapt_s = clock.now() - t_start
    outputs, verification = _scores(bundle, found, material, seed)
    learning = _learning(found, material, seed)
    adapted = write_child(
        Path(out),
        bundle,
        _fields(bundle, material, found, learning) | {"verification": verification},
        graph=found.graph,
        tables=found.tables,
        learnt=found.learnt,
    )
    return {
        "adapt_s": round(adapt_s, 3),
        "decoder_id": adapted.manifest.name,
        "checksum": adapted.manifest.id,
        "parent_id": adapted.manifest.parent_id,
        "n_units": len(session.unit_keys),
        **learning,
        "outputs": outputs,
    }


def _learning(found: Adapted, material: Material, seed: int) -> dict[str, Any]:
    """From what was learnt, and how: for the JSON and the manifest."""
    part, hop_s = material.recording.train, material.hop_s
    return {
        "session": material.session.id,
        "seconds": round((part.last - part.first) * hop_s, 6),
        "start_s": round(part.first * hop_s, 6),
        "start": found.start,
        "n_steps": found.n_steps,
        "n_steps_unfrozen": found.n_steps_unfrozen,
        "filter_share": dict(found.filter_share),
        "follows_drift": bool(np.any(found.tables.get("follow", 0.0))),
        "seed": seed,
    }


def _adapt_streaming(
    bundle: DecoderBundle, base: Base, material: Material, options: Options
) -> Adapted:
    seed, tell = options.seed, options.on_progress
    found = search(base, material, same_array=options.same_array, seed=seed, on_progress=tell)
    last = Unfrozen(base.decoder, found.end, 0)
    if options.unfreeze:
        last = second_stage(base, material, found, seed=seed, on_progress=tell)
    part = material.recording.train
    network = WindowDecoder(last.decoder, material)
    tables = network.tables(last.end.embedding, last.end.session)
    shares: dict[str, float] = {}
    if base.decoder.config.taps_s:
        beside = fit_filter(base.decoder, material, found)
        tables |= beside.tables(material.recording.spikes_per_bin)
        shares = beside.shares(material.outputs)
        usual = network.usual_latents(last.end.embedding, part.first, part.last)
        tables["usual"] = usual - tables["centre"]
        share = follow_share(base.decoder.config.bin_s) if options.follow_drift else 0.0
        tables["follow"] = np.array([share], np.float32)
    return Adapted(
        graph=_graph(last.decoder) if last.n_steps else bundle.graph_path.read_bytes(),
        tables=tables,
        spikes_per_bin=material.recording.spikes_per_bin,
        filter_share=shares,
        learnt=_learnt(base, material, last),
        window_of=bins_of(material),
        lead_in_s=LEAD_IN_S,
        start=found.end.name,
        n_steps=found.n_steps,
        n_steps_unfrozen=last.n_steps,
        n_tokens=np.diff(material.recording.tokens.offsets[part.first : part.last + 1]),
    )


def _scores(
    bundle: DecoderBundle, found: Adapted, material: Material, seed: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What is told of each output, and the manifest's `verification`."""
    keys, manifest = material.recording.unit_keys, bundle.manifest
    before, names = bundle.graph_path.read_bytes(), [output.name for output in manifest.outputs]
    own = np.arange(len(keys), dtype=np.int32)
    runs = [
        ("r2", found.graph, found.tables, own),
        ("r2_before", before, bundle.tables, rows_in(bundle, keys)),
        ("shuffled_r2", found.graph, found.tables, shuffled(own, seed)),
    ]
    decoded = {
        name: decode(
            OnnxruntimeBackend(run, manifest.graph, held, names),
            material,
            row_of,
            found.window_of,
            found.lead_in_s,
        )
        for name, run, held, row_of in runs
    }
    measures = {name: measure(material, values) for name, values in decoded.items()}
    measures["wiener_r2"] = measure(material, wiener(material))
    outputs: dict[str, Any] = {out.name: {} for out in material.outputs}
    for out in material.outputs:
        for name, held in measures.items():
            if out.name in held:
                told = name.replace("r2", "accuracy") if out.classes else name
                outputs[out.name][told] = held[out.name]
    return outputs, verify(material, decoded["r2"])


def _graph(decoder: StreamingDecoder) -> bytes:
    step = StepModule(decoder.config)
    step.decoder.load_state_dict(decoder.state_dict())
    return streaming_graph(step)


def _fields(
    bundle: DecoderBundle, material: Material, found: Adapted, learning: Mapping[str, Any]
) -> dict[str, Any]:
    """Of the new manifest, what differs from the base's: another session and other units."""
    said, recording = bundle.manifest, material.recording
    edge_us = round(recording.train.last * material.hop_s * 1e6)
    silence_s = longest_silence_s(material.session.spikes, edge_us)
    rates_hz = found.spikes_per_bin * 1000 / material.config.beat.bin_ms
    buckets = {*said.token_buckets, *token_buckets(float(np.quantile(found.n_tokens, 0.999)))}
    return {
        "session": material.session.id,
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


def _learnt(base: Base, material: Material, last: Unfrozen) -> dict[str, np.ndarray]:
    """What the next adaptation needs to know of these units, and of the network if it learnt."""
    weights = last.decoder.state_dict() if last.n_steps else {}
    return {f"decoder.{name}": value.numpy() for name, value in weights.items()} | {
        "units.embedding": last.end.embedding.numpy(),
        "units.profile": profiles_of(base, material).numpy(),
    }
