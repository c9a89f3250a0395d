"""The units at calibration, for the daemon to tell without labels how far they have moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from calibration.adaptation.calibration_data import CalibrationData
from calibration.ridge import binned_counts
from export.bundle import DecoderBundle
from streams.spikes.agreement import BIN_S, Reference, reference_of

R2_UNKNOWN = 0.7
"""Of a decoder that was never verified; a loss is told as a share of it."""


def reference_for(
    bundle: DecoderBundle, data: CalibrationData, verification: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the manifest's entry `agreement` for a decoder that was adapted; {} where none can be.

    Args:
        bundle: the decoder that it was made from.
        data: the session.
        verification: the manifest's, if it was scored.
    """
    velocities = [out.name for out in bundle.manifest.outputs if out.safe == "zero"]
    columns = [
        column
        for out in data.outputs
        if not out.classes and (not velocities or out.name in velocities)
        for column in range(out.target.start, out.target.stop)
    ]
    if not columns:
        return {}
    part, hop_s = data.recording.train, data.hop_s
    first, last = (int(edge * hop_s / BIN_S) for edge in (part.first, part.last))
    counts = binned_counts(data.session, BIN_S, last)[first:]
    ends_s = (np.arange(first, last) + 1.0) * BIN_S
    row = np.minimum(np.rint(ends_s / hop_s).astype(np.int64) - 1, len(data.targets) - 1)
    behavior = data.targets[row][:, columns]
    r2 = _r2(bundle, verification, velocities)
    found = reference_of(data.recording.unit_keys, counts, behavior, r2)
    return {} if found is None else {"agreement": found.as_json()}


def _r2(
    bundle: DecoderBundle, verification: Mapping[str, Any] | None, velocities: list[str]
) -> float:
    """Return the decoder's R2 on held-out data, or that of the one it was made from."""
    said = bundle.manifest.verification
    for one in (None if verification is None else verification["r2"], said and said.r2):
        told = list(one.items()) if one else []
        values = [r2 for name, each in told if name in velocities or not velocities for r2 in each]
        if values:
            return float(np.mean(values))
    before = bundle.manifest.training.get("agreement")
    try:
        return Reference.from_json(before).r2 if isinstance(before, dict) else R2_UNKNOWN
    except (ValueError, KeyError, TypeError):
        return R2_UNKNOWN
