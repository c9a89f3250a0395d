"""`spikeloop recentre`: a decoder that takes today's firing rates for what is usual.

Rates drift by more than a minute counts them wrong, and a network takes what a unit fires beyond
its usual for movement. Counting needs no labels: some minutes of spikes of the task are enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.errors import CalibrationError
from decoders.streaming.decoder import SpikeEncoder, StreamingConfig
from export.bundle import DecoderBundle, open_bundle, write_bundle
from export.onnxruntime_backend import record_parity
from export.parity import random_tokens
from streams.messages import Float64s
from streams.nwb import read_session
from streams.session import Session

FEWEST_S = 20.0
PARITY_S = 4.0
KEPT = (
    "family", "hop_s", "bin_s", "context_s", "lead_s", "outputs", "graph", "parity", "session",
    "units", "stale_after_s", "token_buckets",
)  # fmt: skip


def recentre(
    bundle_path: Path, session_path: Path, *, out: Path, seconds: float = 600.0
) -> dict[str, Any]:
    """Count units anew, and write the decoder as a bundle with the same graph and unit rows.

    Args:
        bundle_path: a `streaming` decoder.
        session_path: NWB with its units' spikes in the task; behaviour is not looked at.
        out: directory to write; must not exist.
        seconds: how much of the session's end is counted; less where it is shorter.

    Returns:
        JSON-able: `decoder_id`, `checksum`, `parent_id`, `session`, `seconds`, `n_units` that were
        counted, and `changed`, the median over them of the factor between the rates.

    Raises:
        CalibrationError: another family, no unit of the decoder, or too few seconds or spikes.
        export.errors.ExportError: the bundle is refused, or `out` cannot be written.
        streams.messages.StreamsError: the session cannot be read.
    """
    if Path(out).exists():
        raise CalibrationError(f"{out} exists, and a bundle is never changed; choose another name")
    bundle, session = open_bundle(Path(bundle_path)), read_session(session_path)
    if bundle.manifest.family != "streaming":
        raise CalibrationError(
            f"decoder {bundle.manifest.name!r} of family {bundle.manifest.family!r} has no usual "
            "rates to set: recentre a `streaming` one"
        )
    rates_hz, counted_s = _rates(bundle, session, seconds)
    rows = [bundle.row_of_key[key] for key in rates_hz]
    spikes_per_bin = np.array(list(rates_hz.values())) * bundle.manifest.bin_s
    centre = centre_of(
        bundle.manifest.training, bundle.weights(), bundle.tables, rows, spikes_per_bin
    )
    made = _write(
        Path(out), bundle, {**bundle.tables, "centre": centre}, rates_hz, session.id, counted_s
    )
    before = _rates_before(bundle)
    factors = [
        max(now, before[key]) / min(now, before[key])
        for key, now in rates_hz.items()
        if min(now, before.get(key, 0.0)) > 0.0
    ]
    return {
        "decoder_id": made.manifest.name,
        "checksum": made.manifest.id,
        "parent_id": bundle.manifest.id,
        "session": session.id,
        "seconds": round(counted_s, 3),
        "n_units": len(rates_hz),
        "changed": round(float(np.median(factors)), 3) if factors else None,
    }


def centre_of(
    training: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
    rows: list[int],
    spikes_per_bin: Float64s,
) -> np.ndarray:
    """The graph's `centre` where units fire at other rates.

    Args:
        training: of the manifest.
        weights: of the bundle.
        tables: of the bundle.
        rows: of the units that fire.
        spikes_per_bin: (len(rows),) mean of each.
    """
    encoder = SpikeEncoder(StreamingConfig.from_dict(training["config"]))
    prefix = "decoder.encoder."
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    encoder.load_state_dict({name: torch.from_numpy(value) for name, value in own.items()})
    with torch.no_grad():
        rates = torch.from_numpy(spikes_per_bin).float()
        centre: np.ndarray = encoder.centre(torch.from_numpy(tables["table"][rows]), rates).numpy()
    return centre


def _rates(
    bundle: DecoderBundle, session: Session, seconds: float
) -> tuple[dict[str, float], float]:
    """Hz of each unit that the decoder knows, at the session's end; and the seconds counted."""
    counted_s = min(seconds, session.duration_s)
    if not counted_s >= FEWEST_S:
        raise CalibrationError(
            f"session {session.id}: {counted_s:.1f} s to count; rates need {FEWEST_S:g} s or more"
        )
    late = session.spikes.t_us > (session.duration_s - counted_s) * 1e6
    n_spikes = np.bincount(
        session.spikes.unit[late],
        weights=session.spikes.count[late],
        minlength=len(session.unit_keys),
    )
    rates_hz = {
        key: float(n) / counted_s
        for key, n in zip(session.unit_keys, n_spikes, strict=True)
        if key in bundle.row_of_key
    }
    if not any(rates_hz.values()):
        raise CalibrationError(
            f"session {session.id}: no spike of a unit that decoder {bundle.manifest.name!r} "
            f"knows in its last {counted_s:.0f} s: is it the same array, are the keys the same?"
        )
    return rates_hz, counted_s


def _rates_before(bundle: DecoderBundle) -> dict[str, float]:
    """Hz of each unit when the decoder was made, where its manifest says so."""
    said: Any = bundle.manifest.training.get("unit_rates_hz", {})
    return dict(said)


def _write(
    out: Path,
    bundle: DecoderBundle,
    tables: Mapping[str, np.ndarray],
    rates_hz: Mapping[str, float],
    session: str,
    counted_s: float,
) -> DecoderBundle:
    manifest, graph = bundle.manifest, bundle.graph_path.read_bytes()
    said = manifest.model_dump(mode="json")
    training = said["training"] | {
        "unit_rates_hz": {**_rates_before(bundle), **rates_hz},
        "recentred": {"session": session, "seconds": round(counted_s, 3)},
    }
    made = {"parent_id": manifest.id, "name": out.name, "training": training}
    tokens = random_tokens(
        np.random.default_rng(0),
        n_rows=len(said["units"]),
        n_beats=round(PARITY_S / manifest.hop_s),
        bin_s=manifest.bin_s,
        n_most=said["token_buckets"][-1],
    )
    names = [output.name for output in manifest.outputs]
    return write_bundle(
        out,
        {field: said[field] for field in KEPT} | made,
        graph=graph,
        tables=tables,
        weights=bundle.weights(),
        parity=record_parity(graph, manifest.graph, tables, tokens, names),
    )
