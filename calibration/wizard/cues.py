"""The built-in task: shows targets in turn and a cursor on its way there, and sends all on LSL."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.text import Text

from calibration.wizard.config import CuesSection
from calibration.wizard.run import CalibrationRun
from streams.clock import Clock
from streams.lsl.outlets import MarkerOutlet, PositionOutlet

STEP_S = 0.01
LABELS = ("cursor_x", "cursor_y", "target_x", "target_y")
COLUMNS, ROWS = 41, 19
Point = tuple[float, float]


class Cues:
    """Targets on a circle, each followed by the centre; the cursor leads the way.

    The subject imagines or follows the cursor's movement, a minimum-jerk reach; markers, cursor and
    target leave on LSL as a laboratory's own task would send them.

    Args:
        config: `[cues]`.
        clock: LSL's.
        name: stem for the streams; "-markers" and "-cursor" are appended.
        seed: for the targets' order.
    """

    def __init__(self, config: CuesSection, clock: Clock, name: str, seed: int) -> None:
        self.name = name
        self.cursor: Point = (0.0, 0.0)
        self.target: Point = (0.0, 0.0)
        self.n_trials = 0
        self._config, self._clock = config, clock
        self._targets = _targets(config, np.random.default_rng([seed, 17]))
        self._markers = MarkerOutlet(f"{name}-markers", f"{name}-markers")
        self._position = PositionOutlet(f"{name}-cursor", f"{name}-cursor", LABELS, "cm")
        self._from: Point = (0.0, 0.0)
        self._t_begin_s: float | None = None
        self._t_step_s = clock.now()

    def show_for(self, seconds: float) -> None:
        """Go on with the task for so long."""
        t_end_s = self._clock.now() + seconds
        # After a pause the task goes on, it does not catch up.
        self._t_step_s = max(self._t_step_s, self._clock.now() - 2 * STEP_S)
        while self._t_step_s < t_end_s:
            self._t_step_s += STEP_S
            self._clock.sleep_until(self._t_step_s)
            self._step(self._t_step_s)

    def drawn(self) -> Text:
        """Cursor and target as text."""
        cells = [[" "] * COLUMNS for _ in range(ROWS)]
        for point, mark in ((self.target, "O"), (self.cursor, "+")):
            half = self._config.reach_cm * 1.2
            column = round((point[0] / half + 1) / 2 * (COLUMNS - 1))
            row = round((1 - point[1] / half) / 2 * (ROWS - 1))
            cells[min(max(row, 0), ROWS - 1)][min(max(column, 0), COLUMNS - 1)] = mark
        text = Text("\n".join("".join(row) for row in cells), style="dim")
        text.highlight_regex(r"O", "bold yellow")
        text.highlight_regex(r"\+", "bold green")
        return text

    def close(self) -> None:
        """Take the streams off the network."""
        self._markers.close()
        self._position.close()

    def _step(self, t_s: float) -> None:
        if self._t_begin_s is None:
            self._begin(t_s)
        elif t_s - self._t_begin_s >= self._config.move_s + self._config.hold_s:
            self._markers.push(f"trial_stop i={self.n_trials} success=1", t_s)
            self.n_trials += 1
            self._begin(t_s)
        share = min(1.0, (t_s - (self._t_begin_s or t_s)) / self._config.move_s)
        # Minimum jerk (Flash and Hogan 1985).
        smooth = share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
        self.cursor = (
            self._from[0] + smooth * (self.target[0] - self._from[0]),
            self._from[1] + smooth * (self.target[1] - self._from[1]),
        )
        self._position.push([*self.cursor, *self.target], t_s)

    def _begin(self, t_s: float) -> None:
        self._from, self.target = self.target, next(self._targets)
        self._t_begin_s = t_s
        x, y = self.target
        self._markers.push(f"trial_start i={self.n_trials} x={x:.3f} y={y:.3f}", t_s)


@contextmanager
def builtin_cues(run: CalibrationRun) -> Iterator[Cues | None]:
    """Run the built-in task where the config asks for it; None where the lab's own runs."""
    if not run.config.cues.builtin:
        yield None
        return
    name = f"spikeloop-cues-{os.getpid()}"
    cues = Cues(run.config.cues, run.clock, name, run.config.calibration.seed)
    try:
        yield cues
    finally:
        cues.close()


def _targets(config: CuesSection, rng: np.random.Generator) -> Iterator[Point]:
    while True:
        for i in rng.permutation(config.n_targets):
            angle = 2.0 * math.pi * float(i) / config.n_targets
            yield config.reach_cm * math.cos(angle), config.reach_cm * math.sin(angle)
            yield (0.0, 0.0)
