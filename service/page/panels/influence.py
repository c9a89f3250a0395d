"""Influence of the units on the decode, while the decoder in service is the one that lies here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.bundle import DecoderBundle
from service.page.influence.worker import InfluenceWorker
from service.page.inputs.wire import Heard
from streams.messages import Float64s

SPIKES_WITHIN_S = 0.2
"""By then the spikes up to a window's end have reached the page."""

LEAST_OF_MEAN = 0.5
"""A unit with less than this share of the mean influence has no direction to speak of."""


class InfluencePanel:
    """Hands spikes to a thread that works out the influences.

    Args:
        bundle: the decoder, where it lies on this machine.
    """

    def __init__(self, bundle: DecoderBundle | None) -> None:
        self._bundle = bundle
        self._worker: InfluenceWorker | None = None
        self._served = ("", 0.0)

    def take(self, heard: Heard) -> None:
        """Take in one message; another decoder or lead begins anew."""
        if heard.topic != "decode" or self._bundle is None:
            return
        served = (heard.message["checksum"], heard.message["lead_s"])
        if served == self._served:
            return
        self.close()
        self._served = served
        if served[0] == self._bundle.manifest.id:
            self._worker = InfluenceWorker(self._bundle, served[1])
            self._worker.start()

    def add(self, t_s: Float64s, keys: Sequence[str], unit: np.ndarray, count: np.ndarray) -> None:
        """Take in spikes: (n,) stamps on our clock, units and counts."""
        if self._worker is not None:
            self._worker.add(t_s, keys, unit, count)

    def go_on(self, now_s: float) -> None:
        """Let the thread work up to about now."""
        if self._worker is not None:
            self._worker.go_on(now_s - SPIKES_WITHIN_S)

    def shares(self, keys: Sequence[str]) -> np.ndarray | None:
        """Return (n_units,) shares in what moves the first output; None while they are unknown."""
        found = self._worker.influences if self._worker else {}
        if not found:
            return None
        first = next(iter(found.values()))
        share_of = dict(zip(first.keys, first.share.tolist(), strict=True))
        return np.array([share_of.get(key, 0.0) for key in keys])

    def directions(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """Return where units push the first planar output that is known; None where none is.

        Returns:
            (n_units,) radians, and whether each is told: not of units that hardly push.
        """
        found = self._worker.influences.values() if self._worker else ()
        planar = next((one for one in found if np.isfinite(one.direction).any()), None)
        if planar is None:
            return None
        pushes = planar.share * len(planar.keys) >= LEAST_OF_MEAN
        of_key = {
            key: direction
            for key, direction, is_told in zip(planar.keys, planar.direction, pushes, strict=True)
            if is_told
        }
        angle = np.array([of_key.get(key, np.nan) for key in keys], np.float64)
        return np.nan_to_num(angle), np.isfinite(angle)

    def slow(self) -> dict[str, Any]:
        """Return how the influences were found, or why there are none."""
        if self._bundle is None:
            return {"note": "influence needs the decoder's folder: --bundle or --config"}
        if self._worker is None:
            name = self._bundle.manifest.name
            return {"note": f"influence: another decoder is in service than {name} here"}
        if self._worker.trouble:
            return {"note": f"influence: {self._worker.trouble}"}
        if not self._worker.influences:
            return {"note": "influence: being worked out"}
        first = next(iter(self._worker.influences.values()))
        return {"note": f"influence on {first.output}, by channel", "output": first.output}

    def close(self) -> None:
        """End the thread."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
