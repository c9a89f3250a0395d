"""Unit health: units that died or changed since calibration, and advice to calibrate again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from export.manifest import Manifest
from service.telemetry.unit_numbers import UnitNumbers, Warned
from streams.spikes.unit_silence import WATCHED_CHANCE, is_telling

OVER_S = 60.0
AT_LEAST_S = 20.0
CHANGED_FACTOR = 3.0
CHANGED_Z = 6.0
ADVISED_SHARE = 0.2
NAMED_AT_MOST = 50


def health_of(manifest: Manifest) -> UnitHealth:
    """Return a judge for a decoder's units; not judged if its bundle holds no rates."""
    rates = manifest.training.get("unit_rates_hz")
    known = rates if isinstance(rates, dict) else {}
    return UnitHealth({key: float(hz) for key, hz in known.items() if isinstance(hz, float)})


class UnitWatch:
    """Holds the units that fire against the active decoder's; one thread owns it.

    Args:
        manifest: the active decoder's.
        keys: the source's growing key list.
    """

    def __init__(self, manifest: Manifest, keys: list[str]) -> None:
        self._id, self._keys = manifest.id, keys
        self._health, self._numbers = health_of(manifest), UnitNumbers()

    def look(
        self, t_s: float, n_spikes: np.ndarray, manifest: Manifest, reason: str
    ) -> Iterator[Warned]:
        """Take in the counts, about once a second, and yield warnings.

        Args:
            t_s: now.
            n_spikes: (n_source_units,) since the run's start.
            manifest: the active decoder's.
            reason: why its newest decode is not `ok`.
        """
        if manifest.id != self._id:
            self._id, self._health = manifest.id, health_of(manifest)
        self._health.sample(t_s, n_spikes)
        fired = zip(list(self._keys), n_spikes.tolist(), strict=False)
        yield from self._numbers.look({key: n for key, n in fired if n}, manifest, reason)

    def report(self) -> dict[str, Any]:
        """Return the units' health, see `UnitHealth.report`."""
        return self._health.report(self._keys)


class UnitHealth:
    """Rates in the last minute, held against those at calibration.

    Args:
        calibrated_hz: rate of each unit key when the decoder was made; keys without one, or an
            empty mapping, are not judged.
    """

    def __init__(self, calibrated_hz: Mapping[str, float]) -> None:
        self._calibrated_hz = calibrated_hz
        self._samples: deque[tuple[float, np.ndarray]] = deque()

    def sample(self, t_s: float, n_spikes: np.ndarray) -> None:
        """Take in (n_source_units,) spikes counted since the run's start."""
        self._samples.append((t_s, n_spikes.copy()))
        while self._too_old(t_s):
            self._samples.popleft()

    def _too_old(self, t_s: float) -> bool:
        return len(self._samples) > 2 and self._samples[1][0] <= t_s - OVER_S

    def report(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return `dead` and `changed` units, their share, and `recalibration_advised`.

        Args:
            keys: each source unit's key.
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
        if not is_telling(before_hz, seconds, WATCHED_CHANCE):
            return
        found["judged"] += 1
        if now_hz == 0.0:
            found["dead"].append(key)
            return
        factor = max(now_hz / before_hz, before_hz / now_hz)
        z = abs(now_hz - before_hz) * seconds / math.sqrt((before_hz + now_hz) * seconds)
        if factor > CHANGED_FACTOR and z > CHANGED_Z:
            found["changed"].append(key)
