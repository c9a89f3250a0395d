"""Latency: end to end and by stage, missed beats, and what the last miss was due to."""

from __future__ import annotations

import math
from collections import Counter, deque
from itertools import pairwise
from typing import Any

import numpy as np

from service.page.inputs.wire import Heard
from service.telemetry.flight_recorder import causes

SHOWN_S, POINT_S, STAGES_OVER_S = 60.0, 0.5, 10.0
STAGES = ("wait for spikes", "wake", "cut", "network", "shape", "publish", "receive")
KEPT_BEATS = 3000
EXPLAINED_EVERY_S, FLIGHT_BEATS = 1.0, 500
OTHER_CLOCK_S = 1.0
"""Two machines' monotonic clocks differ by more; a message on one machine takes less."""


class LatencyPanel:
    """Keeps the times of the last beats, and a band for each half second."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, dict[str, Any]]] = deque(maxlen=200)
        self._beats: deque[tuple[float, ...]] = deque(maxlen=KEPT_BEATS)
        self._points: deque[tuple[float, float, float]] = deque(maxlen=int(SHOWN_S / POINT_S))
        self._flight: deque[dict[str, Any]] = deque(maxlen=FLIGHT_BEATS)
        self._cut_by: deque[tuple[float, str]] = deque(maxlen=KEPT_BEATS)
        self._since_point: list[float] = []
        self._t_point_s = float("-inf")
        self._run, self._skipped, self._n_missed = "", 0, 0
        self._least_s, self._other_s = math.inf, 0.0
        self._last_miss: tuple[float, str] | None = None

    def take(self, heard: Heard) -> None:
        """Take in one message."""
        if heard.topic == "decode":
            self._take_decode(heard.t_s, heard.message)
        elif heard.topic == "timing":
            self._take_timing(heard.message)

    def _take_decode(self, t_s: float, decode: dict[str, Any]) -> None:
        self._follow_clock(t_s, decode)
        self._waiting.append((t_s, decode))
        self._since_point.append(1e3 * (t_s - self._other_s - decode["t_window"]))
        if t_s - self._t_point_s > POINT_S:
            p50, p99 = np.percentile(self._since_point, (50, 99))
            self._points.append((t_s, float(p50), float(p99)))
            self._since_point, self._t_point_s = [], t_s

    def _follow_clock(self, t_s: float, decode: dict[str, Any]) -> None:
        """Measure our clock less the daemon's; on another machine the fastest message took none."""
        if decode["run_id"] != self._run:
            self._least_s = math.inf
        self._least_s = min(self._least_s, t_s - decode["t_sent"])
        self._other_s = 0.0 if abs(self._least_s) < OTHER_CLOCK_S else self._least_s

    def _take_timing(self, timing: dict[str, Any]) -> None:
        while self._waiting and self._waiting[0][1]["beat"] < timing["beat"]:
            self._waiting.popleft()
        if not self._waiting or self._waiting[0][1]["beat"] != timing["beat"]:
            return
        t_s, decode = self._waiting.popleft()
        steps = [timing[name] for name in _STEPS] + [t_s - self._other_s]
        self._beats.append((t_s, *(1e3 * (b - a) for a, b in pairwise(steps))))
        self._cut_by.append((t_s, timing["cut_by"]))
        self._note_flight(t_s, decode, timing)

    def _note_flight(self, t_s: float, decode: dict[str, Any], timing: dict[str, Any]) -> None:
        if decode["run_id"] != self._run:
            self._run, self._skipped, self._n_missed = decode["run_id"], decode["beats_skipped"], 0
            self._flight.clear()
        skipped = decode["beats_skipped"] - self._skipped
        self._skipped = decode["beats_skipped"]
        record = {f"{name}_s": timing[f"t_{name}"] - timing["t_window"] for name in _TIMES}
        record |= {"beat": decode["beat"], "late": decode["late"], "skipped": skipped}
        self._flight.append(record)
        if decode["late"] or skipped:
            self._n_missed += skipped + bool(decode["late"])
            if self._last_miss is None or t_s - self._last_miss[0] > EXPLAINED_EVERY_S:
                (*_, (_, cause)) = causes(list(self._flight))
                what = "late" if decode["late"] else f"after {skipped} skipped"
                self._last_miss = (t_s, f"beat {decode['beat']} ({what}): {cause}")

    def slow(self, now_s: float, hop_s: float) -> dict[str, Any]:
        """Return the band of the last minute, and the stages of the last ten seconds."""
        recent = np.array([row for row in self._beats if row[0] > now_s - STAGES_OVER_S])
        stages = []
        share = None
        if len(recent):
            p50, p99 = np.percentile(recent[:, 1:], (50, 99), axis=0).tolist()
            stages = [
                [n, round(a, 4), round(b, 4)] for n, a, b in zip(STAGES, p50, p99, strict=True)
            ]
            total = float(recent[:, 1:].sum())
            share = float(recent[:, 1].sum()) / total if total > 0 else None
        rules = Counter(rule for t_s, rule in self._cut_by if t_s > now_s - STAGES_OVER_S)
        n_rules = max(1, sum(rules.values()))
        miss = self._last_miss
        return {
            "hop_ms": hop_s * 1e3,
            "band": [[round(t - now_s, 2), round(a, 3), round(b, 3)] for t, a, b in self._points
                     if t > now_s - SHOWN_S],
            "stages": stages,
            "waiting_share": share,
            "missed": self._n_missed,
            "cut_by": {rule: n / n_rules for rule, n in rules.most_common()},
            "last_miss": None if miss is None else {"ago_s": now_s - miss[0], "told": miss[1]},
        }  # fmt: skip


_STEPS = ("t_window", "t_due", "t_cut", "t_tokens", "t_done", "t_sent", "t_out")
_TIMES = ("due", "cut", "tokens", "done", "sent", "out")
