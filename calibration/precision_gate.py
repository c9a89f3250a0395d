"""Cost of reduced precision: a backend's R2 against fp32, on the same beats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibration.choices import choice_of
from calibration.evaluate import decode_scored
from calibration.scoring import class_accuracy, score_output, scored_intervals
from export.backends.onnxruntime_cpu import open_cpu
from export.backends.opening import Backend
from export.bundle import DecoderBundle
from streams.sessions.reading import read_session


class PrecisionGate:
    """Score a bundle's backends on one recording.

    Args:
        bundle: the decoder.
        session_path: an NWB file that it has not learnt from.
        split: the scored part, as in `spikeloop evaluate`.

    Raises:
        CalibrationError: nothing can be scored.
        streams.errors.StreamsError: the recording cannot be read.
    """

    def __init__(self, bundle: DecoderBundle, session_path: Path, split: str = "last:0.2") -> None:
        self._bundle = bundle
        self._session = read_session(session_path, choice_of(bundle))
        self._scored = scored_intervals(split, self._session)
        self.r2_fp32 = self._r2(open_cpu(bundle))

    def judge(self, backend: Backend) -> dict[str, Any]:
        """Decode the recording with another backend, and give its cost in R2.

        Returns:
            `session`, the recording's id; `r2_fp32` and `r2` per output and dimension, from
            `onnxruntime-cpu` in fp32 and from this backend; `drop`, the largest loss over outputs
            and dimensions, below 0 where it gained everywhere.
        """
        r2 = self._r2(backend)
        # The worst dimension decides, not the mean.
        drop = max(
            before - after
            for name in r2
            for before, after in zip(self.r2_fp32[name], r2[name], strict=True)
        )
        return {"session": self._session.id, "r2_fp32": self.r2_fp32, "r2": r2, "drop": drop}

    def _r2(self, backend: Backend) -> dict[str, list[float]]:
        lead_s = self._bundle.manifest.lead_s.default
        decoded = decode_scored(self._bundle, backend, self._session, self._scored, lead_s)
        found: dict[str, list[float]] = {}
        for out in decoded.outputs(decoded.beats_in(self._scored)):
            if out.target.classes:
                found[out.target.output] = [class_accuracy(out.values, out.at_s, out.signal)[0]]
            else:
                score = score_output(out.values, out.at_s, out.signal, self._session)
                found[out.target.output] = score.r2
        return found
