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

from decoders.train import train
from export.graphs.streaming import export_run
from streams.lsl.outlets import MarkerOutlet, PositionOutlet, SpikeOutlet
from streams.messages import SpikeBatch
from streams.sessions.nwb.writer import write_session
from streams.sessions.session import Behavior, Session, Trials
from tests.system.running import _RUN, WITHIN_S, HungError, clock, toml, wait_until

LABELS = ("cursor_x", "cursor_y", "target_x", "target_y")
STEP_S = 0.01
STEPS_PER_TRIAL = 80
REACH_CM = 8.0
PLACE = "processing/behavior"
TRAINING = """
name = "yesterday"
split = "last:0.2"
[sessions]
glob = ["day-*.nwb"]
same_array = true
[beat]
hop_ms = 20
bin_ms = 20
rotary = false
[[outputs]]
name = "velocity"
behavior = "cursor_velocity"
unit = "cm/s"
[network]
n_latents = 4
d_unit = 16
d_value = 16
d_model = 24
d_memory = 32
[training]
steps = 150
lanes = 8
window_s = 1.2
context_s = 0.4
learning_rate = 1e-2
dropout = 0.0
unit_dropout = 0.2
average = 0.9
"""


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
        self._keys = keys
        self._spikes = SpikeOutlet(name, name, keys)
        self._markers = MarkerOutlet(f"{name}-markers", f"{name}-markers")
        self._cursor = PositionOutlet(f"{name}-cursor", f"{name}-cursor", LABELS, "cm")
        self._with_markers, self._is_moving = with_markers, is_moving
        self._n_directions, self._is_firing = n_directions, is_firing
        self._rng = np.random.default_rng(5)
        self._ending = threading.Event()

    def run(self) -> None:
        """Trial after trial: out to a target in turn, and back."""
        t0_s, i_step = clock.now(), 0
        while not self._ending.is_set():
            t_s = t0_s + (i_step + 1) * STEP_S
            clock.sleep_until(t_s)
            i_trial, i_in_trial = divmod(i_step, STEPS_PER_TRIAL)
            if not i_in_trial and self._with_markers:
                if i_trial:
                    self._markers.push(f"trial_stop i={i_trial - 1} success=1", t_s)
                x, y = target_of(i_trial, self._n_directions)
                self._markers.push(f"trial_start i={i_trial} x={x:.2f} y={y:.2f}", t_s)
            self._step(i_step, t_s)
            i_step += 1

    def close(self) -> None:
        """Take the streams off the network."""
        self._ending.set()
        self.join()
        for outlet in (self._spikes, self._markers, self._cursor):
            outlet.close()

    def _step(self, i_step: int, t_s: float) -> None:
        cursor, velocity = reach_at(i_step, self._n_directions)
        if not self._is_moving:
            cursor = velocity = np.zeros(2)
        self._cursor.push([*cursor, *target_of(i_step // STEPS_PER_TRIAL, 8)], t_s)
        if not self._is_firing:
            self._spikes.keep_alive(t_s)
            return
        chance = rates_hz(velocity, len(self._keys)) * STEP_S
        unit = np.flatnonzero(self._rng.random(len(chance)) < chance)
        at_s = np.sort(t_s - STEP_S * self._rng.random(len(unit)))
        self._spikes.push(at_s, unit.astype(np.int32))


def target_of(i_trial: int, n_directions: int) -> tuple[float, float]:
    """On a circle in turn, each followed by the centre."""
    if i_trial < 0 or i_trial % 2:
        return (0.0, 0.0)
    angle = 2.0 * math.pi * (i_trial // 2 % n_directions) / n_directions
    return REACH_CM * math.cos(angle), REACH_CM * math.sin(angle)


def reach_at(i_step: int, n_directions: int) -> tuple[np.ndarray, np.ndarray]:
    """Cursor and velocity of a minimum-jerk reach after so many steps."""
    i_trial, i_in_trial = divmod(i_step, STEPS_PER_TRIAL)
    begin = np.array(target_of(i_trial - 1, n_directions))
    way = np.subtract(target_of(i_trial, n_directions), begin)
    share = i_in_trial / STEPS_PER_TRIAL
    speed = 30.0 * share**2 * (1.0 - share) ** 2 / (STEPS_PER_TRIAL * STEP_S)
    return begin + share**3 * (10.0 - 15.0 * share + 6.0 * share**2) * way, speed * way


def rates_hz(velocity: np.ndarray, n_units: int) -> np.ndarray:
    """(..., n_units) of cosine-tuned units, their directions all around; (..., 2) in."""
    angles = 2.0 * np.pi * np.arange(n_units) / n_units
    rates: np.ndarray = 15.0 * np.exp(velocity @ np.stack([np.cos(angles), np.sin(angles)]) / 12.0)
    return rates


def session_of_yesterday(keys: tuple[str, ...], seconds: float, seed: int) -> Session:
    """What a lab would have recorded, without the wait."""
    rng = np.random.default_rng(seed)
    n_steps = round(seconds / STEP_S)
    cursor, velocity = (
        np.array(one) for one in zip(*(reach_at(i, 8) for i in range(n_steps)), strict=True)
    )
    fired = rng.random((n_steps, len(keys))) < rates_hz(velocity, len(keys)) * STEP_S
    i_step, unit = np.nonzero(fired)
    t_us = i_step * round(STEP_S * 1e6) + 1 + rng.integers(0, round(STEP_S * 1e6) - 1, len(unit))
    order = np.argsort(t_us, kind="stable")
    t_s = (np.arange(n_steps) + 1.0) * STEP_S
    starts_s = np.arange(0.0, seconds - 1.0, STEPS_PER_TRIAL * STEP_S)
    return Session(
        id=f"lab/2026-01-01/seed-{seed}",
        unit_keys=keys,
        spikes=SpikeBatch(t_us[order], unit[order].astype(np.int32), np.ones(len(unit), np.int32)),
        behavior={
            f"{PLACE}/BehavioralTimeSeries/cursor_velocity": Behavior(t_s, velocity, "cm/s"),
            f"{PLACE}/Position/cursor_position": Behavior(t_s, cursor, "cm"),
        },
        trials=Trials(starts_s, starts_s + STEPS_PER_TRIAL * STEP_S),
        duration_s=seconds,
    )


def make_base(folder: Path, keys: tuple[str, ...]) -> Path:
    """A small decoder of two sessions of the lab's units, as a bundle."""
    for seed in (1, 2):
        write_session(session_of_yesterday(keys, 60.0, seed), folder / f"day-{seed}.nwb")
    (folder / "train.toml").write_text(TRAINING)
    export_run(train(folder / "train.toml", out=folder / "run"), folder / "yesterday")
    return folder / "yesterday"


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
            "learn_s": 6.0,
            "verify_s": 3.0,
            "fewest_trials": 8,
            "patience_s": 2.0,
            "most_s": 30.0,
        },
        "learn": {"first_s": 5.0, "every_s": 1.0, "least_gain": 1.0},
        "decide": dict.fromkeys(
            ("least_r2", "over_shuffled", "over_yesterday", "over_wiener"), -1e3
        ),
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
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 180, 0, 0))
        size = ("LINES", "COLUMNS")  # of whoever started the tests
        env = {name: value for name, value in os.environ.items() if name not in size}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _RUN, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=env | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(theirs)
        self._held, self._text = "", ""

    @property
    def text(self) -> str:
        """Everything that was written since the last `press`, without control sequences."""
        n_before = len(self._held)
        while select.select([self._ours], [], [], 0.0)[0]:
            try:
                held = os.read(self._ours, 65536)
            except OSError:
                break
            if not held:
                break
            self._held += held.decode("utf-8", "replace")
        if len(self._held) != n_before:
            self._text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._held)
        return self._text

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
        self._held, self._text = "", ""
        os.write(self._ours, keys.encode())

    def code(self) -> int:
        """Wait for its end, reading on; its exit code."""
        wait_until(self._ended)
        return int(self.popen.returncode)

    def kill(self) -> None:
        """End it, and what it started in its session."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.code()
        os.close(self._ours)

    def _ended(self) -> bool:
        _ = self.text
        return self.popen.poll() is not None


def until_done(progress: Path, step: str, is_alive: Callable[[], bool]) -> None:
    """Wait until a step is in the progress file of a wizard that lives."""
    mark = f'"{step}": {{'
    wait_until(lambda: (progress.exists() and mark in progress.read_text()) or not is_alive())
    assert is_alive(), f"the wizard ended before {step} was done"
