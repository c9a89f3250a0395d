"""Adaptation of the streaming decoder: embeddings, then the whole network on request."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.calibration_data import CalibrationData
from calibration.adaptation.gradient.batched_fits import BatchedFits, Start, WindowDecoder
from calibration.adaptation.gradient.search import (
    Found,
    recipe_for,
    search,
    step_until_no_gain,
)
from calibration.adaptation.gradient.starts import Base, load_base, profiles_of
from calibration.adaptation.held_out import held_out_bins
from calibration.adaptation.linear_filter import FoldDecodes, fit_filter
from calibration.adaptation.scores import LEAD_IN_S, bins_of
from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.drift import follow_share
from decoders.streaming.step import StepModule
from export.bundle import DecoderBundle
from export.graphs.streaming import streaming_graph
from streams.messages import Float64s

LANES = 8
HISTORY_S = 2.0
WINDOW_S = 10.0
WINDOWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Unfrozen:
    """Second stage's result.

    Attributes:
        decoder: with its own weights, or the base's where `n_steps` is 0.
        end: embeddings and session vector.
        n_steps: gradient steps; 0 where held-out trials gained nothing.
    """

    decoder: StreamingDecoder
    end: Start
    n_steps: int


def adapt_streaming(bundle: DecoderBundle, data: CalibrationData, options: Options) -> Adapted:
    """Adapt a streaming decoder to a session.

    Raises:
        CalibrationError: the bundle has no embeddings, or on the same array no known key.
    """
    base = load_base(bundle)
    found = search(
        base,
        data,
        same_array=options.same_array,
        seed=options.seed,
        on_progress=options.on_progress,
    )
    last = Unfrozen(base.decoder, found.end, 0)
    if options.unfreeze:
        last = _second_stage(base, data, found, options)
    part = data.recording.train
    network = WindowDecoder(last.decoder, data)
    tables = network.tables(last.end.embedding, last.end.session)
    shares: dict[str, float] = {}
    if base.decoder.config.taps_s:
        beside = fit_filter(base.decoder.config, data, decodes_of_folds(base.decoder, data, found))
        tables |= beside.tables(data.recording.spikes_per_bin)
        shares = beside.shares(data.outputs)
        usual = network.usual_latents(last.end.embedding, part.first, part.last)
        # Drift is measured from the labelled seconds, not from the training.
        tables["usual"] = usual - tables["centre"]
        share = follow_share(base.decoder.config.bin_s) if options.follow_drift else 0.0
        tables["follow"] = np.array([share], np.float32)
    return Adapted(
        graph=_graph(last.decoder) if last.n_steps else bundle.graph_path.read_bytes(),
        tables=tables,
        spikes_per_bin=data.recording.spikes_per_bin,
        filter_share=shares,
        learnt=_learnt(base, data, last),
        window_of=bins_of(data),
        lead_in_s=LEAD_IN_S,
        start=found.end.name,
        n_steps=found.n_steps,
        n_steps_unfrozen=last.n_steps,
        n_tokens=np.diff(data.recording.tokens.offsets[part.first : part.last + 1]),
    )


def decodes_of_folds(
    decoder: StreamingDecoder, data: CalibrationData, found: Found
) -> list[FoldDecodes]:
    """Decode the trials that each fold of `search` left out.

    Args:
        decoder: the network.
        data: the session.
        found: the search's result.
    """
    part, network = data.recording.train, WindowDecoder(decoder, data)
    held_out = held_out_bins(data)[:, part.first : part.last]
    return [
        FoldDecodes(left_out, _decoded(network, data, end))
        for end, left_out in zip(found.without, held_out, strict=False)
    ]


@torch.no_grad()
def _decoded(network: WindowDecoder, data: CalibrationData, end: Start) -> Float64s:
    """Decode the labelled part in windows with a run-up: (n_bins, n_dims)."""
    part, hop_s = data.recording.train, data.hop_s
    n_run_up, n_new = round(HISTORY_S / hop_s), round(WINDOW_S / hop_s)
    n_bins = min(n_run_up + n_new, part.last)
    begins = torch.arange(part.first - n_run_up, part.last - n_run_up, n_new)
    begins = begins.clamp(min=0, max=part.last - n_bins)
    decoded = np.zeros((part.last, len(data.scale)))
    for some in torch.split(begins, WINDOWS_AT_ONCE):
        answers = network(end.embedding[None], end.session[None], some, n_bins)[0].numpy()
        for begin, answer in zip(some.tolist(), answers, strict=True):
            n_skipped = n_run_up if begin else 0
            decoded[begin + n_skipped : begin + n_bins] = answer[n_skipped:]
    return decoded[part.first :]


def _second_stage(base: Base, data: CalibrationData, found: Found, options: Options) -> Unfrozen:
    """Train the whole network and the embeddings, from the first stage's end.

    Held-out trials decide how many steps. Then a fit to all labelled seconds takes as many.
    """
    recipe = replace(recipe_for(data), lanes=LANES)
    n_steps = 0

    def new_fit(start: Start, fitted: np.ndarray) -> BatchedFits:
        # The base serves other fits: its weights stay.
        decoder = copy.deepcopy(base.decoder).requires_grad_(True)
        return BatchedFits(decoder, data, [start], fitted[None], recipe, options.seed)

    if found.without:
        fold = new_fit(found.without[0], data.labelled & ~held_out_bins(data)[0])
        losses = step_until_no_gain(
            fold.step, lambda: float(fold.held_out_losses()[0]), recipe, options.on_progress
        )
        n_steps = int(np.argmin(losses)) * recipe.look_every
    if n_steps == 0:
        return Unfrozen(base.decoder, found.end, 0)
    whole = new_fit(found.end, data.labelled)
    for _ in range(n_steps):
        whole.step()
    return Unfrozen(whole.slow.decoder, whole.ends()[0], n_steps)


def _graph(decoder: StreamingDecoder) -> bytes:
    step = StepModule(decoder.config)
    step.decoder.load_state_dict(decoder.state_dict())
    return streaming_graph(step)


def _learnt(base: Base, data: CalibrationData, last: Unfrozen) -> dict[str, np.ndarray]:
    """Weights that the next adaptation needs: these units', and the network's if it changed."""
    weights = last.decoder.state_dict() if last.n_steps else {}
    return {f"decoder.{name}": value.numpy() for name, value in weights.items()} | {
        "units.embedding": last.end.embedding.numpy(),
        "units.profile": profiles_of(base, data).numpy(),
    }
