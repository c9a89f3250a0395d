"""A device's clock against ours, known only by when its messages arrive."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np

from streams.messages import Float64s

SEGMENT_S = 1.0
N_SEGMENTS = 60
DRIFT_FROM_SEGMENTS = 10
"""With less than ten seconds a slope is noise: one late segment would tilt the line."""
DRIFT_MOST = 2e-4
"""Crystals differ by up to 100 ppm; what is beyond is a queue that fills or empties."""
READY_AFTER = 10
BACK_S, JUMP_S = 0.5, 0.1


class DeviceClock:
    """Maps a device's time to LSL's: `t_lsl = t_device + offset`, the offset along a line.

    Each message gives one measurement of the offset, too large by the time for which the message
    was held up. So the line runs below all of the last minute's, as close as it can: an edge of
    their lower convex hull (Zhang, Liu and Xia 2002, "Clock synchronization algorithms for network
    measurements"). What remains is the shortest way that a message took, a constant that nobody
    can know from arrivals.
    """

    def __init__(self) -> None:
        self.n_restarts = 0
        self._begin()

    def _begin(self) -> None:
        self._t0: float | None = None
        self._newest_s = -np.inf
        self._points: deque[tuple[float, float]] = deque(maxlen=N_SEGMENTS)
        self._segment_end_s = np.inf
        self._lowest = (0.0, np.inf)
        self._n = 0
        self._slope = self._offset_s = 0.0

    @property
    def is_ready(self) -> bool:
        """True once stamps may be trusted: the first messages after a connect are held up."""
        return self._n >= READY_AFTER

    @property
    def drift(self) -> float:
        """Seconds by which the offset grows each second."""
        return self._slope

    def restart(self) -> None:
        """Forget the device's clock: it began anew."""
        self.n_restarts += 1
        self._begin()

    def measure(self, device_s: float, arrived_s: float) -> bool:
        """Take in that this device time was told of at `arrived_s`; True if the clock was set.

        It was set where the device's time fell back by over half a second, or where every message
        of a second came over 0.1 s later than the line says: then the device stood still.
        """
        if device_s < self._newest_s - BACK_S:
            self.restart()
            self.measure(device_s, arrived_s)
            return True
        if self._t0 is None:
            self._t0, self._segment_end_s = device_s, arrived_s + SEGMENT_S
        self._newest_s = max(self._newest_s, device_s)
        self._n += 1
        x, offset_s = device_s - self._t0, arrived_s - device_s
        is_set = arrived_s >= self._segment_end_s and self._end_segment(arrived_s)
        if is_set:
            return True
        if offset_s < self._lowest[1]:
            self._lowest = (x, offset_s)
        below_s = offset_s - self._slope * x
        if self._n == 1 or below_s < self._offset_s:
            self._offset_s = below_s
        return False

    def to_lsl(self, device_s: Float64s) -> Float64s:
        """Return device times on LSL's clock, seconds."""
        since_s = device_s - (self._t0 or 0.0)
        mapped: Float64s = device_s + self._offset_s + self._slope * since_s
        return mapped

    def _end_segment(self, arrived_s: float) -> bool:
        """Keep the lowest measurement of the second that is over; True if the clock was set."""
        x, offset_s = self._lowest
        is_behind = offset_s - self._slope * x - self._offset_s > JUMP_S
        if is_behind and np.isfinite(offset_s):
            self.restart()
            return True
        self._points.append(self._lowest)
        self._lowest, self._segment_end_s = (0.0, np.inf), arrived_s + SEGMENT_S
        points = np.array(self._points)
        if len(points) >= DRIFT_FROM_SEGMENTS:
            self._slope = float(np.clip(_slope_below(points), -DRIFT_MOST, DRIFT_MOST))
        self._offset_s = float(np.min(points[:, 1] - self._slope * points[:, 0]))
        return False


def _slope_below(points: Float64s) -> float:
    """Slope of the lower convex hull of (n, 2) points where their mean lies."""
    hull: list[tuple[float, float]] = []
    for x, y in points.tolist():
        while len(hull) >= 2 and _is_above(hull[-1], hull[-2], (x, y)):
            hull.pop()
        hull.append((x, y))
    mean = float(np.mean(points[:, 0]))
    for (x0, y0), (x1, y1) in pairwise(hull):
        if x1 >= mean and x1 > x0:
            return (y1 - y0) / (x1 - x0)
    return 0.0


def _is_above(
    point: tuple[float, float], left: tuple[float, float], right: tuple[float, float]
) -> bool:
    """Return True if the point lies on the line from left to right, or above it."""
    rise = (point[1] - left[1]) * (right[0] - left[0])
    return rise >= (right[1] - left[1]) * (point[0] - left[0])
