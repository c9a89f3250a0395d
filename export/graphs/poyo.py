"""Export POYO: one session from a torch_brain checkpoint or from a training run of ours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decoders.checkpoint import load_checkpoint, load_weights
from decoders.config import POYO_FAMILY, TrainConfig, parse_config
from decoders.errors import DecodersError
from decoders.poyo.checkpoint import CheckpointError, read_checkpoint
from decoders.poyo.config import PoyoConfig
from decoders.poyo.network import Poyo
from decoders.poyo.step import PoyoStep, step_config, step_of_session
from decoders.streaming.shape import OutputSpec
from export.bundle import DecoderBundle
from export.errors import ExportError
from export.graphs.run_fields import buckets_up_to, find_session, run_fields, token_buckets
from export.graphs.step_bundle import to_onnx, write_step_bundle
from export.manifest import LeadRange

N_PARITY_BEATS = 20
BUDGET_HZ = 20.0
ATOL_FP32 = 1e-4
STALE_AFTER_S = 1.0
"""Silence in all units after which a decode is not trusted."""
REACH = 5.0
"""Declared bounds lie so many scales from the offset."""


@dataclass(frozen=True, slots=True)
class PoyoOutput:
    """Meaning of a checkpoint's readout, which the file itself does not give.

    Attributes:
        name: on the wire.
        unit: physical unit.
        offset: (dims,) physical value for a normalised 0.
        scale: (dims,) physical size for a normalised 1: the standard deviation in training.

    Raises:
        ValueError: offset and scale differ in length.
    """

    name: str
    unit: str
    offset: Sequence[float]
    scale: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.offset) != len(self.scale):
            raise ValueError(
                f"output {self.name!r} has {len(self.offset)} offsets, {len(self.scale)} scales"
            )

    def declared(self) -> dict[str, Any]:
        """Output for the manifest."""
        pairs = list(zip(self.offset, self.scale, strict=True))
        return {
            "name": self.name,
            "dims": len(pairs),
            "unit": self.unit,
            "safe": "zero",
            "low": [offset - REACH * scale for offset, scale in pairs],
            "high": [offset + REACH * scale for offset, scale in pairs],
        }


def parse_output(text: str) -> PoyoOutput:
    """Read `velocity:cm/s:20,20` as an output.

    Raises:
        ExportError: it has another form.
    """
    try:
        name, unit, scales = text.split(":")
        scale = [float(one) for one in scales.split(",")]
        return PoyoOutput(name, unit, offset=[0.0] * len(scale), scale=scale)
    except ValueError as error:
        raise ExportError(
            f"{text!r} is no output: say NAME:UNIT:SCALE, one scale a dimension, for example "
            "velocity:cm/s:20,20"
        ) from error


def export_poyo(
    checkpoint: Path,
    out: Path,
    *,
    hop_s: float,
    session: str | None = None,
    outputs: Sequence[PoyoOutput] = (),
    unit_words: Mapping[str, str] | None = None,
    lead_s: LeadRange | None = None,
    max_tokens: int | None = None,
    trust_pickle: bool = False,
) -> DecoderBundle:
    """Make one session's bundle from a torch_brain checkpoint.

    Args:
        checkpoint: the file, in Lightning's layout.
        out: directory to write; must not exist; its name becomes the decoder's.
        hop_s: seconds between decodes; each takes the whole window.
        session: its word in the checkpoint's vocabulary; needed where there are several.
        outputs: the readout's meaning, in its order; if empty, one output `decoded` in the
            training's normalised units.
        unit_words: per unit key in the stream, the unit's word in the checkpoint's vocabulary; by
            default the words that begin with the session's; what follows is the key.
        lead_s: by default any time in the window, as in the training, with its end as the default.
        max_tokens: spikes in a window that the hop must leave time for; by default 20 Hz per unit.
        trust_pickle: see `read_checkpoint`.

    Raises:
        ExportError: the checkpoint cannot be read, has no such session, units or outputs, or the
            bundle cannot be written.
    """
    try:
        network = read_checkpoint(checkpoint, trust_pickle=trust_pickle)
        session = _session(network, session)
        words = unit_words or _words_of_session(network, session)
        dims = network.config.dim_out
        outputs = outputs or [PoyoOutput("decoded", "normalised", [0.0] * dims, [1.0] * dims)]
        step = _step(network, session, list(words.values()), outputs)
        leads_s = _leads(network, lead_s)
    except CheckpointError as error:
        raise ExportError(str(error)) from error
    except (DecodersError, ValueError) as error:
        raise ExportError(f"{checkpoint}: {error}") from error
    n_most = max_tokens or math.ceil(len(words) * BUDGET_HZ * network.config.sequence_s)
    fields: dict[str, Any] = {
        "session": session,
        "units": [{"key": key, "row": row} for row, key in enumerate(words)],
        "hop_s": hop_s,
        "lead_s": leads_s.model_dump(),
        "stale_after_s": STALE_AFTER_S,
        "token_buckets": buckets_up_to(n_most),
        "outputs": [output.declared() for output in outputs],
        "training": {"checkpoint": checkpoint.name},
    }
    return write_step(out, step, fields)


def _session(network: Poyo, wanted: str | None) -> str:
    known = network.session_emb.words
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted not in known:
        what = "several sessions: name one" if wanted is None else f"no session {wanted!r}"
        more = " ..." if len(known) > 10 else ""
        raise ValueError(f"the checkpoint has {what}; it has {', '.join(known[:10])}{more}")
    return wanted


def _words_of_session(network: Poyo, session: str) -> dict[str, str]:
    """Unit words by their keys."""
    prefix, words = f"{session}/", network.unit_emb.words
    own = {word.removeprefix(prefix): word for word in words if word.startswith(prefix)}
    if not own and len(network.session_emb.words) == 1:
        own = {word: word for word in words}
    if not own:
        raise ValueError(
            f"no unit of the vocabulary begins with {prefix!r}: say which word each unit key of "
            f"the stream has; the words are {', '.join(words[:3])} ..."
        )
    return own


def _step(
    network: Poyo, session: str, words: Sequence[str], outputs: Sequence[PoyoOutput]
) -> PoyoStep:
    return step_of_session(
        network,
        session,
        words,
        [OutputSpec(output.name, len(output.scale)) for output in outputs],
        [value for output in outputs for value in output.offset],
        [value for output in outputs for value in output.scale],
    )


def _leads(network: Poyo, wanted: LeadRange | None) -> LeadRange:
    window_s = network.config.sequence_s
    if wanted is None:
        return LeadRange(min=-window_s, max=0.0, default=0.0)
    if max(-wanted.min, wanted.max) > window_s:
        raise ValueError(
            f"leads from {wanted.min:g} to {wanted.max:g} s: a lead must lie within {window_s:g} s "
            "of the window's end"
        )
    return wanted


def export_poyo_run(path: Path, out: Path, session: str | None) -> DecoderBundle:
    """Make a run's bundle; see `export.graphs.runs.export_trained` for the arguments.

    Raises:
        DecodersError: the checkpoint cannot be read.
        ExportError: no such session, or the bundle cannot be written.
    """
    checkpoint = load_checkpoint(path, POYO_FAMILY)
    sessions: list[dict[str, Any]] = json.loads(checkpoint["sessions"])
    config = parse_config(json.loads(checkpoint["config"]), str(path))
    i_session = find_session(sessions, session, path)
    chosen = sessions[i_session]
    step = _step_of_run(path, checkpoint, config, sessions, chosen)
    fields = run_fields(
        config, sessions, i_session, chosen["unit_keys"], step.outputs, checkpoint["step"]
    )
    first_s = config.beat.hop_ms / 1000 - step.config.sequence_s
    fields["lead_s"] = {"min": first_s, "max": 0.0, "default": 0.0}
    fields["token_buckets"] = token_buckets(chosen["tokens_p999"])
    return write_step(out, step, fields)


def _step_of_run(
    path: Path,
    checkpoint: dict[str, Any],
    config: TrainConfig,
    sessions: list[dict[str, Any]],
    chosen: dict[str, Any],
) -> PoyoStep:
    words = [f"{one['id']}/{key}" for one in sessions for key in one["unit_keys"]]
    shape = PoyoConfig(**json.loads(checkpoint["network"]))
    network = Poyo(shape, words, [one["id"] for one in sessions])
    load_weights(network, checkpoint["weights"], str(path))
    dims = zip(config.outputs, checkpoint["dims"], strict=True)
    return step_of_session(
        network,
        chosen["id"],
        [f"{chosen['id']}/{key}" for key in chosen["unit_keys"]],
        [OutputSpec(output.name, n) for output, n in dims],
        checkpoint["offset"].tolist(),
        checkpoint["scale"].tolist(),
    )


def write_step(out: Path, step: PoyoStep, fields: Mapping[str, Any]) -> DecoderBundle:
    """Write a step's bundle.

    Args:
        out: a directory that does not exist yet.
        step: with its units and session.
        fields: for the manifest, but for what follows from the step.

    Raises:
        BundleError: `out` exists, or a field is wrong.
    """
    window_s, n_units = step.config.sequence_s, len(fields["units"])
    own: dict[str, Any] = {
        "family": POYO_FAMILY,
        "bin_s": window_s,
        "context_s": window_s,
        "parity": {"atol_fp32": ATOL_FP32 * max(1.0, float(step.scale.max()))},
        "training": {
            **fields["training"],
            "config": step_config(step.config, step.outputs, n_units),
        },
    }
    weights = {k: v for k, v in step.state_dict().items() if isinstance(v, torch.Tensor)}
    return write_step_bundle(
        out,
        step,
        poyo_graph(step),
        {**fields, **own},
        tables=step.tables(),
        weights=weights,
        n_beats=N_PARITY_BEATS,
        mean_hz=min(BUDGET_HZ, max(fields["token_buckets"]) / n_units / window_s),
        whole_us=True,
    )


def poyo_graph(step: PoyoStep) -> bytes:
    """One window as ONNX, its weights inside.

    Raises:
        ExportError: torch gives no graph.
    """
    n, rows = torch.export.Dim("n_tokens", min=0), torch.export.Dim("n_rows", min=1)
    inputs = {
        "unit": torch.zeros(7, dtype=torch.int32),
        "t_rel": torch.zeros(7),
        "count": torch.ones(7),
        "table": torch.zeros(11, step.table_width),
        "session": torch.zeros(step.config.dim),
        "lead_s": torch.zeros(1),
    }
    lengths = ({0: n}, {0: n}, {0: n}, {0: rows}, None, None)
    return to_onnx(step, inputs, [output.name for output in step.outputs], lengths)
