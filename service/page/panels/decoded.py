"""Decodes: traces of every output, the cursor and its target, running R2."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.page.inputs.wire import Heard
from service.page.scores import RunningR2
from streams.lsl.axes import axes_of
from streams.messages import Float64s

TRACE_S, KEPT_S = 5.0, 10.0
DIFFERENCED_OVER_S, LATEST_S = 0.05, 0.3
CURRENT_S = 1.0
"""A position that is older is not where the cursor is."""
BODIES = ("cursor", "hand", "")
"""What is taken for the cursor, where several things move."""


class DecodedPanel:
    """Keeps the decodes and positions of the last half minute."""

    def __init__(self) -> None:
        self.outputs: list[list[Any]] = []
        self._fresh: dict[str, list[list[Any]]] = {"decoded": [], "shadow": [], "actual": []}
        self._scores = {"velocity": RunningR2(), "position": RunningR2()}
        self._place: deque[list[float]] = deque()
        self._velocity: deque[list[float]] = deque()
        self._channels: dict[str, list[int]] = {}
        self._target: list[float] | None = None
        self._t_shadow_s = float("-inf")
        self.newest: dict[str, Any] = {}

    def take(self, heard: Heard) -> None:
        """Take in one message."""
        if heard.topic not in ("decode", "shadow"):
            return
        decode = heard.message
        values = [decode["value_raw" if heard.topic == "shadow" else "value"]]
        row = [heard.t_s - (decode["t_sent"] - decode["t_window"]) + decode["lead_s"]]
        row += _flat(values[0], [n for n, *_ in self.outputs] or list(values[0]))
        self._fresh["decoded" if heard.topic == "decode" else "shadow"].append(row)
        if heard.topic == "shadow":
            self._t_shadow_s = heard.t_s
            return
        self.newest = decode
        self._name_outputs(decode)
        for name, score in self._scores.items():
            value = decode["value"].get(name)
            if decode["validity"] == "ok" and value and None not in value:
                score.add_decoded(row[0], value)

    def _name_outputs(self, decode: dict[str, Any]) -> None:
        sizes = {name: len(v) for name, v in decode["value_raw"].items() if v is not None}
        sizes |= {name: len(v) for name, v in decode["value"].items() if v is not None}
        if len(sizes) == len(decode["value"]):
            self.outputs = [[n, sizes[n], decode["units"][n]] for n in decode["value"]]

    def open_positions(self, labels: Sequence[str]) -> None:
        """Take over the labels of the stream of positions; others than before begin anew."""
        found = {
            body: channels[:2] for body, channels in axes_of(labels).items() if len(channels) > 1
        }
        if found != self._channels:
            self._channels, self._target = found, None
            self._place.clear()
            self._velocity.clear()

    def add_positions(self, values: np.ndarray, t_s: Float64s) -> None:
        """Take in (n, n_channels) positions with their stamps on our clock."""
        if not self._channels or not len(t_s):
            return
        body = next((one for one in BODIES if one in self._channels), next(iter(self._channels)))
        for t, row in zip(t_s.tolist(), values[:, self._channels[body]].tolist(), strict=True):
            self._add_place(t, row)
        if "target" in self._channels:
            target = [float(v) for v in values[-1, self._channels["target"]]]
            self._target = target if np.isfinite(target).all() else None
        newest_s = self._place[-1][0]
        for kept in (self._place, self._velocity):
            while kept and kept[0][0] < newest_s - KEPT_S:
                kept.popleft()

    def _add_place(self, t_s: float, row: list[float]) -> None:
        self._place.append([t_s, *row])
        self._scores["position"].add_actual(t_s, row)
        before = next((p for p in reversed(self._place) if p[0] <= t_s - DIFFERENCED_OVER_S), None)
        if before is not None and t_s - before[0] < 2 * DIFFERENCED_OVER_S:
            span_s = t_s - before[0]
            speed = [(new - old) / span_s for new, old in zip(row, before[1:], strict=True)]
            moved = [t_s - span_s / 2, *speed]
            self._velocity.append(moved)
            self._scores["velocity"].add_actual(moved[0], speed)
            self._fresh["actual"].append(moved)

    def velocity_now(self, now_s: float) -> np.ndarray | None:
        """Return a velocity (2,) to estimate tuning by, while decodes are `ok`; else None.

        The actual one where it is known, else the decoded.
        """
        if self.newest.get("validity") != "ok":
            return None
        if self._velocity and self._velocity[-1][0] > now_s - LATEST_S:
            return np.array(self._velocity[-1][1:3])
        value = self.newest["value"].get("velocity")
        if not value or None in value or len(value) < 2:
            return None
        return np.array(value[:2], np.float64)

    def place_at(self, t_s: float) -> list[float] | None:
        """Return where the cursor was, (x, y)."""
        found = next((p for p in reversed(self._place) if p[0] <= t_s), None)
        return None if found is None else found[1:3]

    def fast(self, now_s: float) -> dict[str, Any]:
        """Return what came since the last call, times as seconds ago (below 0)."""
        told = {
            name: [[round(row[0] - now_s, 3), *(_short(v) for v in row[1:])] for row in rows]
            for name, rows in self._fresh.items()
        }
        for rows in self._fresh.values():
            rows.clear()
        place = self._place[-1] if self._has_cursor(now_s) else None
        return told | {
            "cursor": None if place is None else [_short(v) for v in place[1:3]],
            "target": None if place is None else self._target,
        }

    def _has_cursor(self, now_s: float) -> bool:
        return bool(self._place) and self._place[-1][0] > now_s - CURRENT_S

    def slow(self, now_s: float) -> dict[str, Any]:
        """Return outputs and their running R2."""
        return {
            "outputs": self.outputs,
            "r2": self._r2(),
            "has_plane": bool(self._place),
            "has_cursor": self._has_cursor(now_s),
            "has_shadow": now_s - self._t_shadow_s < 1.0,
        }

    def _r2(self) -> dict[str, list[float | None]]:
        """R2 of each dimension of `velocity` and `position` over the last 30 s, where known."""
        told = {name: score.r2() for name, score in self._scores.items()}
        return {
            name: [round(one, 3) if math.isfinite(one) else None for one in r2]
            for name, r2 in told.items()
            if r2 is not None
        }


def _flat(value: dict[str, list[float | None] | None], names: Sequence[str]) -> list[float | None]:
    return [number for name in names for number in (value.get(name) or [None])]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
