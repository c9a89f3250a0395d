"""Unit health: which units died or changed since calibration, and whether to calibrate again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OVER_S = 60.0
AT_LEAST_S = 20.0
DEAD_BY_CHANCE = 1e-6
CHANGED_FACTOR = 3.0
CHANGED_Z = 6.0
ADVISED_SHARE = 0.2
NAMED_AT_MOST = 50


class UnitHealth:
    """Rates of the last minute, held against those at calibration.

    Args:
        calibrated_hz: rate of each unit key when the decoder was made; keys without one, or an
            empty mapping, are not judged.
    """

    def __init__(self, calibrated_hz: Mapping[str, float]) -> None:
        self._calibrated_hz = calibrated_hz
        self._samples: deque[tuple[float, np.ndarray]] = deque()

    def sample(self, t_s: float, n_spikes: np.ndarray) -> None:
        """Take in (n_source_units,) spikes counted since the start of the run."""
        self._samples.append((t_s, n_spikes.copy()))
        while self._too_old(t_s):
            self._samples.popleft()

    def _too_old(self, t_s: float) -> bool:
        return len(self._samples) > 2 and self._samples[1][0] <= t_s - OVER_S

    def report(self, keys: Sequence[str]) -> dict[str, Any]:
        """How the units do: `dead`, `changed`, their share, and whether recalibration is advised.

        Args:
            keys: key of each source unit.
        """
        seconds, rates_hz = self._rates(len(keys))
        found: dict[str, Any] = {"seconds": seconds, "dead": [], "changed": [], "judged": 0}
        if seconds >= AT_LEAST_S:
            heard = dict(zip(keys, rates_hz.tolist(), strict=False))
            for key, before_hz in self._calibrated_hz.items():
                self._judge(key, before_hz, heard.get(key, 0.0), seconds, found)
        n_bad = len(found["dead"]) + len(found["changed"])
        share = n_bad / found["judged"] if found["judged"] else 0.0
        return found | {
            "dead": found["dead"][:NAMED_AT_MOST],
            "changed": found["changed"][:NAMED_AT_MOST],
            "share": share,
            "recalibration_advised": share > ADVISED_SHARE,
        }

    def _rates(self, n_units: int) -> tuple[float, np.ndarray]:
        if len(self._samples) < 2:
            return 0.0, np.zeros(n_units)
        (t_first_s, before), (t_last_s, after) = self._samples[0], self._samples[-1]
        n = after.astype(np.float64)
        n[: len(before)] -= before
        seconds = t_last_s - t_first_s
        return seconds, np.pad(n, (0, max(0, n_units - len(n)))) / max(seconds, 1e-9)

    def _judge(
        self, key: str, before_hz: float, now_hz: float, seconds: float, found: dict[str, Any]
    ) -> None:
        expected = before_hz * seconds
        if expected < -math.log(DEAD_BY_CHANCE):
            return
        found["judged"] += 1
        if now_hz == 0.0:
            found["dead"].append(key)
            return
        factor = max(now_hz / before_hz, before_hz / now_hz)
        z = abs(now_hz - before_hz) * seconds / math.sqrt(expected + now_hz * seconds)
        if factor > CHANGED_FACTOR and z > CHANGED_Z:
            found["changed"].append(key)
