"""Export a POYO training run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decoders.checkpoint import load_checkpoint, load_weights
from decoders.config import TrainConfig, parse_config
from decoders.poyo.config import PoyoConfig
from decoders.poyo.network import Poyo
from decoders.poyo.step import PoyoStep, step_of_session
from decoders.streaming.decoder import OutputSpec
from export.bundle import DecoderBundle
from export.graphs.poyo import FAMILY, write_step
from export.graphs.run_fields import find_session, run_fields, token_buckets


def export_poyo_run(path: Path, out: Path, session: str | None) -> DecoderBundle:
    """Make a run's bundle; see `export.graphs.runs.export_trained` for the arguments.

    Raises:
        DecodersError: the checkpoint cannot be read.
        ExportError: no such session, or the bundle cannot be written.
    """
    checkpoint = load_checkpoint(path, FAMILY)
    sessions: list[dict[str, Any]] = json.loads(checkpoint["sessions"])
    config = parse_config(json.loads(checkpoint["config"]), str(path))
    i_session = find_session(sessions, session, path)
    chosen = sessions[i_session]
    step = _step(path, checkpoint, config, sessions, chosen)
    fields = run_fields(
        config, sessions, i_session, chosen["unit_keys"], step.outputs, checkpoint["step"]
    )
    first_s = config.beat.hop_ms / 1000 - step.config.sequence_s
    fields["lead_s"] = {"min": first_s, "max": 0.0, "default": 0.0}
    fields["token_buckets"] = token_buckets(chosen["tokens_p999"])
    return write_step(out, step, fields)


def _step(
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
