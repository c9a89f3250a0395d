"""`spikeloop recentre`: a decoder that takes today's firing rates for what is usual.

Rates drift by more than a minute counts them wrong, and a network takes what a unit fires beyond
its usual for movement. Counting needs no labels: some minutes of spikes of the task are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.adaptation.child import write_child
from calibration.adaptation.linear_filter import filter_centre
from calibration.adaptation.starts import load_base
from calibration.errors import CalibrationError
from decoders.streaming.decoder import StreamingDecoder
from export.bundle import DecoderBundle, open_bundle
from streams.messages import Float64s
from streams.nwb import read_session
from streams.session import Session

FEWEST_S = 20.0


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
        CalibrationError: a decoder that cannot be adapted either, no unit of it, or too few seconds
            or spikes.
        export.errors.ExportError: the bundle is refused, or `out` cannot be written.
        streams.messages.StreamsError: the session cannot be read.
    """
    if Path(out).exists():
        raise CalibrationError(f"{out} exists, and a bundle is never changed; choose another name")
    bundle, session = open_bundle(Path(bundle_path)), read_session(session_path)
    decoder = load_base(bundle).decoder
    rates_hz, counted_s = _rates(bundle, session, seconds)
    rows = [bundle.row_of_key[key] for key in rates_hz]
    usual = np.array(list(rates_hz.values())) * bundle.manifest.bin_s
    centres = centres_of(decoder, bundle.tables, rows, usual)
    before, counted_s = _rates_before(bundle), round(counted_s, 3)
    training = dict(bundle.manifest.training) | {
        "unit_rates_hz": before | rates_hz,
        "recentred": {"session": session.id, "seconds": counted_s},
    }
    made = write_child(
        Path(out),
        bundle,
        {"training": training},
        graph=bundle.graph_path.read_bytes(),
        tables={**bundle.tables, **centres},
        learnt={},
    )
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
        "seconds": counted_s,
        "n_units": len(rates_hz),
        "changed": round(float(np.median(factors)), 3) if factors else None,
    }


def centres_of(
    decoder: StreamingDecoder,
    tables: Mapping[str, np.ndarray],
    rows: Sequence[int] | slice,
    usual: Float64s,
) -> dict[str, np.ndarray]:
    """The graph's tables that tell what units usually fire.

    Args:
        decoder: the network.
        tables: the graph's.
        rows: of the U units that fire.
        usual: (U,) mean spikes per bin of each.
    """
    with torch.no_grad():
        rates, table = torch.from_numpy(usual).float(), torch.from_numpy(tables["table"][rows])
        centres = {"centre": decoder.encoder.centre(table, rates).numpy()}
    if "filter_rows" in tables:
        centres["filter_centre"] = filter_centre(tables["filter_rows"][rows], usual)
    return centres


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
