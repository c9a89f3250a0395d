"""A lab for the wizard's tests: streams of the test's choice, configs, and wizards in processes."""

from __future__ import annotations

import fcntl
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from streams.lsl import MarkerOutlet, PositionOutlet, SpikeOutlet
from tests.system.running import _RUN, WITHIN_S, HungError, clock, toml, wait_until

LABELS = ("cursor_x", "cursor_y", "target_x", "target_y")
STEP_S = 0.01
TRIAL_S = 0.8
REACH_CM = 8.0


class Lab(threading.Thread):
    """Spikes, markers and a cursor on LSL, in a thread, until it is closed.

    Args:
        name: of the streams.
        keys: of the units.
        with_markers: whether trials are marked.
        is_moving: whether the cursor moves.
        n_directions: of the targets; 2 are on one line.
        is_firing: whether any unit fires.
    """

    def __init__(
        self,
        name: str,
        keys: tuple[str, ...],
        *,
        with_markers: bool = True,
        is_moving: bool = True,
        n_directions: int = 8,
        is_firing: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self.name_ = name
        self._spikes = SpikeOutlet(name, name, keys)
        self._markers = MarkerOutlet(f"{name}-markers", f"{name}-markers")
        self._cursor = PositionOutlet(f"{name}-cursor", f"{name}-cursor", LABELS, "cm")
        self._with_markers, self._is_moving = with_markers, is_moving
        self._n_directions, self._is_firing = n_directions, is_firing
        self._rng = np.random.default_rng(5)
        angles = 2.0 * np.pi * np.arange(len(keys)) / len(keys)
        self._tuning = np.stack([np.cos(angles), np.sin(angles)])
        self._ending = threading.Event()

    def run(self) -> None:
        """Trial after trial: out to a target in turn, and back."""
        t0_s, i_step, i_trial = clock.now(), 0, -1
        begin, target = (0.0, 0.0), (0.0, 0.0)
        while not self._ending.is_set():
            i_step += 1
            t_s = t0_s + i_step * STEP_S
            clock.sleep_until(t_s)
            share = (i_step * STEP_S) % TRIAL_S / TRIAL_S
            if int(i_step * STEP_S / TRIAL_S) != i_trial:
                self._mark(f"trial_stop i={i_trial}", t_s)
                i_trial += 1
                begin, target = target, self._next(i_trial)
                self._mark(f"trial_start i={i_trial} x={target[0]:.2f} y={target[1]:.2f}", t_s)
            self._step(t_s, begin, target, share)

    def close(self) -> None:
        """Take the streams off the network."""
        self._ending.set()
        self.join()
        for outlet in (self._spikes, self._markers, self._cursor):
            outlet.close()

    def _next(self, i_trial: int) -> tuple[float, float]:
        if i_trial % 2:
            return (0.0, 0.0)
        angle = 2.0 * math.pi * (i_trial // 2 % self._n_directions) / self._n_directions
        return REACH_CM * math.cos(angle), REACH_CM * math.sin(angle)

    def _mark(self, text: str, t_s: float) -> None:
        if self._with_markers and "i=-1" not in text:
            self._markers.push(text, t_s)

    def _step(
        self, t_s: float, begin: tuple[float, float], target: tuple[float, float], share: float
    ) -> None:
        way = np.subtract(target, begin)
        smooth = share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
        speed = 30.0 * share**2 * (1.0 - share) ** 2 / TRIAL_S
        cursor = np.add(begin, smooth * way) if self._is_moving else np.zeros(2)
        self._cursor.push([*cursor, *target], t_s)
        if not self._is_firing:
            self._spikes.keep_alive(t_s)
            return
        rate_hz = 15.0 * np.exp(speed * way / 12.0 @ self._tuning)
        unit = np.flatnonzero(self._rng.random(len(rate_hz)) < rate_hz * STEP_S)
        at_s = np.sort(t_s - STEP_S * self._rng.random(len(unit)))
        self._spikes.push(at_s, unit.astype(np.int32))


def write_config(folder: Path, name: str, base: Path | str, **sections: dict[str, Any]) -> Path:
    """A wizard's config: short, without a daemon unless one is named."""
    chosen: dict[str, dict[str, Any]] = {
        "calibration": {
            "subject": "lab",
            "folder": str(folder / "calibrations"),
            "registry": str(folder / "bundles"),
            "base": str(base),
        },
        "spikes": {"name": name},
        "markers": {"name": f"{name}-markers"},
        "behavior": {"name": f"{name}-cursor"},
        "collect": {
            "check_s": 2.0,
            "learn_s": 8.0,
            "verify_s": 4.0,
            "fewest_trials": 8,
            "patience_s": 2.0,
            "most_s": 30.0,
        },
        "deploy": {"control": "", "shadow_s": 0.5, "watch_s": 1.0},
    }
    for section, fields in sections.items():
        chosen[section] = chosen.get(section, {}) | fields
    path = folder / "calibrate.toml"
    path.write_text(toml(chosen))
    return path


class Terminal:
    """`spikeloop ARGUMENTS` behind a pseudo-terminal, as somebody sits before it.

    Args:
        arguments: of the command line.
    """

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _RUN, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(theirs)
        self._held = ""

    @property
    def text(self) -> str:
        """Everything that was written since the last `press`, without control sequences."""
        while select.select([self._ours], [], [], 0.0)[0]:
            try:
                held = os.read(self._ours, 65536)
            except OSError:
                break
            if not held:
                break
            self._held += held.decode("utf-8", "replace")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._held)

    def until(self, text: str, within_s: float = WITHIN_S) -> str:
        """Wait until this is on the screen; all that was written."""
        try:
            wait_until(lambda: text in self.text or self._ended(), within_s=within_s)
        except HungError:
            raise HungError(f"{text!r} did not appear; there is: {self.text[-3000:]}") from None
        assert text in self.text, f"it ended without {text!r}: {self.text[-3000:]}"
        return self.text

    def press(self, keys: str) -> None:
        """Type; what was on the screen before no longer counts."""
        _ = self.text
        self._held = ""
        os.write(self._ours, keys.encode())

    def code(self) -> int:
        """Wait for its end, reading on; its exit code."""
        wait_until(self._ended)
        return int(self.popen.returncode)

    def kill(self) -> None:
        """End it, and what it started in its session."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(WITHIN_S)
        os.close(self._ours)

    def _ended(self) -> bool:
        _ = self.text
        return self.popen.poll() is not None


def until_done(progress: Path, step: str, is_alive: Callable[[], bool]) -> None:
    """Wait until a step is in the progress file of a wizard that lives."""
    mark = f'"{step}": {{'
    wait_until(
        lambda: (progress.exists() and mark in progress.read_text()) or not is_alive(),
        within_s=90.0,
    )
    assert is_alive(), f"the wizard ended before {step} was done"
