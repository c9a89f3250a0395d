"""Export a streaming decoder's training run: graph, folded tables, parity record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decoders.checkpoint import CHECKPOINT, load_checkpoint, load_weights
from decoders.config import TrainConfig, parse_config
from decoders.errors import DecodersError
from decoders.streaming.linear_filter import SERVES_TO_S, TAPS_S
from decoders.streaming.network import SessionNetwork
from decoders.streaming.shape import StreamingConfig
from decoders.streaming.step import StepModule, unadapted
from export.bundle import DecoderBundle
from export.errors import ExportError
from export.graphs.run_fields import find_session, run_fields
from export.graphs.step_bundle import to_onnx, write_step_bundle

PARITY_S = 4.0


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A training run, opened.

    Attributes:
        config: the training's.
        network: with its averaged weights.
        sessions: each session's record.
        steps: training steps.
    """

    config: TrainConfig
    network: SessionNetwork
    sessions: list[dict[str, Any]]
    steps: int

    @property
    def shape(self) -> StreamingConfig:
        """Shape to export: with a linear filter, which adaptation fits."""
        shape = self.network.decoder.config
        return replace(shape, taps_s=TAPS_S, serves_to_s=SERVES_TO_S)


def export_run(run_dir: Path, out: Path, *, session: str | None = None) -> DecoderBundle:
    """Make a run's bundle.

    Args:
        run_dir: the run's directory, or its checkpoint file.
        out: directory to write; must not exist; its name becomes the decoder's.
        session: id of the exported session; the last in the
            order of ids if None. Other sessions on the same array add rows for their other keys.

    Raises:
        ExportError: no such run or session, or the bundle cannot be written.
    """
    path = run_dir / CHECKPOINT if run_dir.is_dir() else run_dir
    run = open_run(path)
    i_session = find_session(run.sessions, session, path)
    keys, rows = exported_rows(run.sessions, i_session, run.config.sessions.same_array)
    tables = run.network.bundle_tables(i_session, own_rows(run.sessions, i_session), rows)
    step = StepModule(run.shape)
    step.decoder.load_state_dict(run.network.decoder.state_dict())
    fields = run_fields(run.config, run.sessions, i_session, keys, run.shape.outputs, run.steps)
    fields["training"]["config"] = run.shape.to_dict()
    return write_step_bundle(
        out,
        step,
        streaming_graph(step),
        fields,
        tables=tables | unadapted(len(rows), run.shape),
        weights=step.state_dict() | run.network.of_units(rows),
        n_beats=round(PARITY_S * 1000 / run.config.beat.hop_ms),
    )


def open_run(path: Path) -> TrainedRun:
    """Read a checkpoint's trained network and its sessions' records.

    Raises:
        ExportError: no checkpoint, or another architecture.
    """
    try:
        checkpoint = load_checkpoint(path)
        sessions: list[dict[str, Any]] = json.loads(checkpoint["sessions"])
        weights: dict[str, Tensor] = checkpoint["weights"]
        if "key_of_row" not in weights or "profile" not in weights:
            raise ExportError(f"{path} is of another architecture: it knows no units; train again")
        network = SessionNetwork(
            StreamingConfig.from_dict(json.loads(checkpoint["network"])),
            key_of_row=weights["key_of_row"].tolist(),
            n_sessions=len(sessions),
            max_units=max(len(session["unit_keys"]) for session in sessions),
            n_profile=weights["profile"].shape[1],
        )
        load_weights(network, weights, str(path))
        config = parse_config(json.loads(checkpoint["config"]), str(path))
    except DecodersError as error:
        raise ExportError(str(error)) from error
    return TrainedRun(config, network.eval(), sessions, checkpoint["step"])


def exported_rows(
    sessions: Sequence[Mapping[str, Any]], i_session: int, same_array: bool
) -> tuple[list[str], list[int]]:
    """The bundle's keys, and their rows in the network.

    On the same array a key that the chosen session lacks takes its latest row in another one.
    """
    row_of = [
        dict(zip(session["unit_keys"], own_rows(sessions, i), strict=True))
        for i, session in enumerate(sessions)
    ]
    others = [held for held, one in zip(row_of, sessions, strict=True) if not one.get("made_up")]
    latest = {key: row for held in others for key, row in held.items()} if same_array else {}
    chosen = latest | row_of[i_session]
    return list(chosen), list(chosen.values())


def own_rows(sessions: Sequence[Mapping[str, Any]], i_session: int) -> range:
    """The network's rows for one session."""
    first = sum(len(session["unit_keys"]) for session in sessions[:i_session])
    return range(first, first + len(sessions[i_session]["unit_keys"]))


def streaming_graph(step: StepModule) -> bytes:
    """One bin as ONNX, its weights inside."""
    config = step.decoder.config
    n, rows = torch.export.Dim("n_tokens", min=0), torch.export.Dim("n_rows", min=1)
    inputs = {
        "unit": torch.zeros(7, dtype=torch.int32),
        "t_rel": torch.zeros(7),
        "count": torch.zeros(7),
        "table": torch.zeros(11, config.table_width),
        "session": torch.zeros(config.d_readout),
        "centre": torch.zeros(config.n_pooled),
        "lead_s": torch.zeros(1),
        "memory_h": torch.zeros(1, config.d_memory),
    }
    names = [*(output.name for output in config.outputs), "memory_h_out"]
    lengths: list[Any] = [{0: n}, {0: n}, {0: n}, {0: rows}, *(None,) * 4]
    if config.taps_s:
        inputs |= unadapted(11, config)
        inputs["memory_filter"] = torch.zeros(1, config.n_sums)
        inputs["memory_drift"] = torch.zeros(1, config.n_pooled + config.n_sums)
        names += ["memory_filter_out", "memory_drift_out"]
        lengths.append(({0: rows}, *(None,) * 6))
    return to_onnx(step, inputs, names, lengths)
