"""The machine a measurement ran on, and what the measured processes took of it (Linux's /proc)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.choice.machine import cpu_model
from streams.clock import MonotonicClock

LIBRARIES = ("spikeloop", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "pylsl", "pyzmq")
WARM_S = 60.0
FLAT = 0.01
SAMPLE_EVERY_S = 1.0
_MIB = 2**20


Ticks = tuple[int, int]


def processor_ticks() -> Ticks | None:
    """Return the ticks of all processors so far, and those that other virtual machines had."""
    words = (_line("/proc/stat") or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    ticks = [int(word) for word in words[1:9]]
    return sum(ticks), ticks[7]


def describe(before: Ticks | None) -> dict[str, Any]:
    """CPU, cores, kernel, governor, clock source, load and versions; null where not readable.

    Args:
        before: `processor_ticks` as the measurement began; `stolen` is the share of the processors'
            time since then that other virtual machines had.
    """
    now = processor_ticks()
    stolen = None
    if before is not None and now is not None and now[0] > before[0]:
        stolen = (now[1] - before[1]) / (now[0] - before[0])
    return {
        "stolen": stolen,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "kernel": platform.release(),
        "preemption": _preemption(),
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_source": _line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "isolated_cores": _line("/sys/devices/system/cpu/isolated"),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "libraries": {name: version_of(name) for name in LIBRARIES if version_of(name)},
    }


def _preemption() -> str:
    kinds = [kind for kind in ("PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT")
             if kind in platform.version().split()]  # fmt: skip
    return kinds[0] if kinds else "voluntary or none"


def _line(path: str) -> str | None:
    try:
        return Path(path).read_text().strip() or None
    except OSError:
        return None


def version_of(name: str) -> str | None:
    """Return an installed distribution's version; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class Usage:
    """Processor time and resident memory of processes, sampled as the measurement goes.

    Args:
        pids: by name.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._clock, self._due_s = MonotonicClock(), 0.0
        self._t_s: list[float] = []
        self._readings: dict[str, list[tuple[float, int]]] = {name: [] for name in pids}

    def sample_after(self, decode: dict[str, Any] | None) -> None:
        """Sample once a second, right after a decode: then the most time is left to the next."""
        now_s = self._clock.now()
        if decode is not None and now_s >= self._due_s:
            self._due_s = now_s + SAMPLE_EVERY_S
            self.sample(now_s)

    def sample(self, t_s: float) -> None:
        """Read all of them now; a process that is gone keeps its last numbers."""
        self.add(t_s, {name: _read(pid) for name, pid in self._pids.items()})

    def add(self, t_s: float, readings: Mapping[str, tuple[float, int] | None]) -> None:
        """Take in processor seconds so far, and resident bytes, of each process."""
        self._t_s.append(t_s)
        for name, read in readings.items():
            before = self._readings[name]
            before.append(read or (before[-1] if before else (0.0, 0)))

    def summary(self) -> dict[str, Any]:
        """Per process, `cores` (share of one), `rss_mib` at the end, and `growth` after a minute.

        Growth is the largest reading after the first minute over the one there, less 1; null for
        a run too short to tell.
        """
        if len(self._t_s) < 2:
            return {}
        t_s = np.array(self._t_s) - self._t_s[0]
        warm = int(np.searchsorted(t_s, WARM_S))
        result = {}
        for name, readings in self._readings.items():
            cpu_s, held = np.array(readings).T
            growth = float(held[warm:].max() / held[warm] - 1) if warm < len(held) - 1 else None
            result[name] = {
                "cores": float((cpu_s[-1] - cpu_s[0]) / t_s[-1]),
                "rss_mib": float(held[-1] / _MIB),
                "growth": growth,
            }
        return result


def _read(pid: int) -> tuple[float, int] | None:
    """Processor seconds so far, and resident bytes."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf(
        "SC_PAGE_SIZE"
    )
