"""Units: their rates, health and tuning."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from export.bundle import DecoderBundle
from service.page.panels.raster import CHANGED, SILENT, UNKNOWN, marks_of
from service.page.panels.tuning import BIN_S, Tuning
from service.telemetry.unit_health import UnitHealth, health_of

LISTED_AT_MOST, DRAWN_AT_MOST = 60, 1000
LONGEST_BIN_S = 0.5
LISTED_FIRST = np.zeros(4, np.int64)
LISTED_FIRST[[CHANGED, SILENT, UNKNOWN]] = 3, 2, 1
MARK_WORDS = {SILENT: "silent", CHANGED: "changed", UNKNOWN: "unknown"}


class UnitsPanel:
    """Counts each unit's spikes, and holds them against the decoder's.

    Args:
        bundle: the decoder, where it lies on this machine; tells known units and their rates.
    """

    def __init__(self, bundle: DecoderBundle | None) -> None:
        self.tuning = Tuning()
        self._bundle = bundle
        self._health: UnitHealth | None = health_of(bundle.manifest) if bundle else None
        self._n, self._n_bin = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._samples: deque[tuple[float, np.ndarray]] = deque(maxlen=12)
        self._t_bin_s = float("-inf")

    def add(self, unit: np.ndarray, count: np.ndarray, n_units: int) -> None:
        """Take in spikes: (n,) units, and how many each stands for."""
        if n_units > len(self._n):
            more = n_units - len(self._n)
            self._n, self._n_bin = np.pad(self._n, (0, more)), np.pad(self._n_bin, (0, more))
        self._n += np.bincount(unit, count, len(self._n)).astype(np.int64)

    def close_bin(self, now_s: float, velocity: np.ndarray | None) -> None:
        """End a bin of the tuning where it is time; `velocity` is None where there is none."""
        span_s = now_s - self._t_bin_s
        if span_s < BIN_S:
            return
        self._t_bin_s = now_s
        if velocity is not None and span_s < LONGEST_BIN_S and len(self._n):
            # On a busy machine a bin becomes longer than it should be.
            self.tuning.add((self._n - self._n_bin) * (BIN_S / span_s), velocity)
        self._n_bin = self._n.copy()

    def sample(self, now_s: float) -> None:
        """Note how many spikes there were so far; about once a second."""
        self._samples.append((now_s, self._n.copy()))
        if self._health is not None:
            self._health.sample(now_s, self._n)

    def rates_hz(self) -> np.ndarray:
        """Return (n_units,) rates over the last ten seconds."""
        if len(self._samples) < 2:
            return np.zeros(len(self._n))
        (t_before, before), (t_after, after) = self._samples[0], self._samples[-1]
        earlier = np.pad(before, (0, len(after) - len(before)))
        rates = (after - earlier) / max(t_after - t_before, 1e-9)
        return np.pad(rates, (0, len(self._n) - len(rates)))

    def health(self, keys: list[str], status: Mapping[str, Any]) -> dict[str, Any]:
        """Return the daemon's view on the units, or ours where the daemon was not asked."""
        told = status.get("health")
        if told:
            return dict(told)
        return {} if self._health is None else self._health.report(keys)

    def marks(self, keys: list[str], status: Mapping[str, Any]) -> np.ndarray:
        """Return (n_units,) marks: fine, silent, changed or unknown."""
        health = self.health(keys, status)
        known = self._bundle.row_of_key if self._bundle else None
        return marks_of(keys, health.get("dead", ()), health.get("changed", ()), known)

    def slow(
        self,
        keys: list[str],
        marks: np.ndarray,
        status: Mapping[str, Any],
        shares: np.ndarray | None,
        pushes: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """Return the table: units that changed, fell silent, are unknown, then by influence.

        Args:
            keys: the source's units.
            marks: (n_units,) from `marks`.
            status: the daemon's; empty where it was not asked.
            shares: (n_units,) of influence; None while they are unknown.
            pushes: (n_units,) directions in which units push, and whether each is told; None to
                take the tuning's.
        """
        health = self.health(keys, status)
        return {
            "n_seen": len(keys),
            "n_known": status.get("units_known"),
            "n_marked": {word: int((marks == mark).sum()) for mark, word in MARK_WORDS.items()},
            "advised": bool(health.get("recalibration_advised", False)),
            "judged": int(health.get("judged", 0)),
            "judged_s": float(health.get("seconds", 0.0)),
            **self._listed(keys, marks, shares, pushes),
        }

    def _listed(
        self,
        keys: list[str],
        marks: np.ndarray,
        shares: np.ndarray | None,
        pushes: tuple[np.ndarray, np.ndarray] | None,
    ) -> dict[str, Any]:
        n, before = len(keys), self._calibrated_hz()
        angle, is_tuned, r2 = (_fitted(of, n) for of in self.tuning.directions())
        angle, is_tuned = pushes or (angle, is_tuned)
        rates = _fitted(self.rates_hz(), n)
        drives = _fitted(np.sqrt(r2), n) if shares is None else shares
        order = np.lexsort((-rates, -drives, -LISTED_FIRST[marks]))[:LISTED_AT_MOST]
        listed = [
            {
                "key": keys[i],
                "mark": MARK_WORDS.get(int(marks[i]), ""),
                "hz": round(float(rates[i]), 2),
                "before_hz": before.get(keys[i]),
                "angle": round(float(np.degrees(angle[i]))) if is_tuned[i] else None,
                "share": None if shares is None else round(float(shares[i]), 4),
            }
            for i in order.tolist()
        ]
        polar = [
            [round(float(angle[i]), 3), round(float(drives[i]), 4), keys[i]]
            for i in np.flatnonzero(is_tuned)[:DRAWN_AT_MOST].tolist()
        ]
        return {"listed": listed, "polar": polar}

    def _calibrated_hz(self) -> Mapping[str, float]:
        if self._bundle is None:
            return {}
        rates = self._bundle.manifest.training.get("unit_rates_hz")
        if not isinstance(rates, dict):
            return {}
        return {key: hz for key, hz in rates.items() if isinstance(hz, float)}


def _fitted(values: np.ndarray, n: int) -> np.ndarray:
    """Return the first n values, zeros where there are fewer."""
    return np.pad(values[:n], (0, max(0, n - len(values))))
