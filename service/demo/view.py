"""The demo's screen: the cursor and its target, and how the loop is doing."""

from __future__ import annotations

from collections import Counter, deque
from threading import Event
from typing import Any

import numpy as np
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from service.telemetry.percentiles import percentiles
from service.words import COLOURS, reason_in_words, silence_of, validity_in_words
from streams.clock import MonotonicClock
from streams.errors import StreamAbsentError
from streams.lsl.inlets import Inlet, find_inlet

REFRESH_S = 0.1
WORKSPACE_CM = 13.0
COLUMNS, ROWS = 53, 25
TRAIL = 12


class LiveView:
    """Draws while decodes come in; in a thread of its own, so that receiving is not held up.

    Args:
        name: name of the subject's stream of spikes.
        seconds: how long the demo runs.
        note: a line below the picture.
    """

    def __init__(self, name: str, seconds: float, note: str = "") -> None:
        self._note = note
        self._name, self._seconds = name, seconds
        self._clock = MonotonicClock()
        self._decodes: deque[tuple[dict[str, Any], float]] = deque(maxlen=500)
        self._validity: Counter[str] = Counter()
        self._trail: deque[tuple[float, float]] = deque(maxlen=TRAIL)
        self._cursor: np.ndarray | None = None
        self._t_first_s: float | None = None

    def take(self, decode: dict[str, Any] | None) -> None:
        """Take a decode in, as it is received."""
        if decode is None:
            return
        now_s = self._clock.now()
        self._t_first_s = self._t_first_s or now_s
        self._decodes.append((decode, now_s))
        self._validity[decode["validity"]] += 1

    def draw(self, ending: Event) -> None:
        """Draw until told to end."""
        inlet: Inlet | None = None
        console = Console()
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while not ending.wait(REFRESH_S):
                inlet = inlet or self._find_cursor()
                if inlet is not None:
                    self._follow(inlet)
                if console.is_terminal:
                    live.update(self._screen(), refresh=True)

    def _find_cursor(self) -> Inlet | None:
        try:
            inlet = find_inlet("Position", name=f"{self._name}-cursor", timeout_s=1.0)
            inlet.open()
        except StreamAbsentError:
            return None
        return inlet

    def _follow(self, inlet: Inlet) -> None:
        samples, _ = inlet.pull(0.0)
        if len(samples):
            self._cursor = samples[-1]
            self._trail.extend((float(x), float(y)) for x, y in samples[::5, :2])

    def _screen(self) -> Group:
        if self._t_first_s is None:
            return Group(Text("starting the daemon and the subject ..."))
        left_s = max(0.0, self._seconds - (self._clock.now() - self._t_first_s))
        title = f"spikeloop demo  {left_s:4.0f} s left"
        picture = Columns([Panel(self._field(), title=title), self._numbers()])
        return Group(picture, Text(self._note))

    def _field(self) -> Text:
        cells = [[" "] * COLUMNS for _ in range(ROWS)]
        for x, y in self._trail:
            _put(cells, x, y, ".")
        if self._cursor is not None:
            _put(cells, float(self._cursor[2]), float(self._cursor[3]), "O")
            _put(cells, float(self._cursor[0]), float(self._cursor[1]), "+")
        text = Text("\n".join("".join(row) for row in cells), style="dim")
        text.highlight_regex(r"O", "bold yellow")
        text.highlight_regex(r"\+", "bold green")
        return text

    def _numbers(self) -> Table:
        recent = list(self._decodes)
        last, _ = recent[-1]
        table = Table(show_header=False, box=None)
        acquired = 0 if self._cursor is None else int(self._cursor[4])
        table.add_row("targets acquired", f"[bold]{acquired}[/]")
        colour = COLOURS[last["validity"]]
        table.add_row("now", f"[{colour}]{validity_in_words(last['validity'])}[/]")
        if last["reason"]:
            table.add_row("", reason_in_words(last["reason"], silence_of(last)))
        shares = "  ".join(f"{name} {n}" for name, n in self._validity.most_common())
        table.add_row("decodes so far", shares)
        table.add_row("velocity", _vector(last["value"].get("velocity")))
        span_s = max(1e-9, recent[-1][1] - recent[0][1])
        table.add_row("decodes per s", f"{(len(recent) - 1) / span_s:.1f}")
        n_spikes = last["spikes_in"] - recent[0][0]["spikes_in"]
        table.add_row("spikes per s", f"{n_spikes / span_s:.0f}")
        table.add_row("tokens", str(last["tokens"]))
        decode_ms = percentiles([1e3 * (d["t_done"] - d["t_cut"]) for d, _ in recent])
        end_ms = percentiles([1e3 * (t_s - d["t_window"]) for d, t_s in recent])
        for name, ms in (("decode ms", decode_ms), ("end to end ms", end_ms)):
            table.add_row(name, f"p50 {ms['p50']:.2f}  p99 {ms['p99']:.2f}")
        table.add_row("late, dropped", f"{last['spikes_late']}, {last['spikes_dropped']} spikes")
        table.add_row("beats skipped", str(last["beats_skipped"]))
        table.add_row("decoder", f"{last['decoder_id']} on {last['backend']}")
        return table


def _put(cells: list[list[str]], x_cm: float, y_cm: float, mark: str) -> None:
    if not (np.isfinite(x_cm) and np.isfinite(y_cm)):
        return
    column = round((x_cm / WORKSPACE_CM + 1) / 2 * (COLUMNS - 1))
    row = round((1 - y_cm / WORKSPACE_CM) / 2 * (ROWS - 1))
    if 0 <= column < COLUMNS and 0 <= row < ROWS:
        cells[row][column] = mark


def _vector(value: list[float] | None) -> str:
    return "none" if value is None else "  ".join(f"{v:+6.1f}" for v in value) + " cm/s"
