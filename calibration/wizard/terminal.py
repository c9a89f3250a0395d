"""The wizard's face in a terminal: one screen a step, one key a choice."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.align import Align
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from calibration.wizard.face import NEXT, BackError, Choice, Page, QuitError
from calibration.wizard.wizard import STEPS
from streams.clock import Clock, wait_readable

REDRAW_S = 0.25
BACK, QUIT = Choice("b", "back"), Choice("q", "quit")
_NAMES = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}
LONGEST_LINE = 300


class TerminalFace:
    """Shows pages on the whole screen and reads single keys.

    Args:
        live: draws.
        clock: to wait by.
    """

    def __init__(self, live: Live, clock: Clock) -> None:
        self._live, self._clock = live, clock

    def ask(
        self, page: Page, choices: Sequence[Choice] = (NEXT,), wait_s: float | None = None
    ) -> str | None:
        """Show a page; the key of a choice, or None after `wait_s`."""
        offered = [*choices, BACK, QUIT]
        t_end_s = float("inf") if wait_s is None else self._clock.now() + wait_s
        self._draw(page, _keys(offered))
        while True:
            left_s = max(0.0, min(t_end_s - self._clock.now(), REDRAW_S))
            if wait_readable(sys.stdin.fileno(), left_s):
                key = _pressed()
                if key == QUIT.key:
                    self._leave(page)
                elif key == BACK.key:
                    raise BackError
                elif key in [choice.key for choice in choices]:
                    return key
                self._draw(page, _keys(offered))
            if self._clock.now() >= t_end_s:
                return None

    def write(self, page: Page, prompt: str) -> str:
        """Ask for a line; enter ends it once it is not empty."""
        text = ""
        while True:
            line = Text.assemble((f"{prompt} ", "bold"), text, ("_", "blink"))
            hint = Text("type the reason, then enter; ctrl-c leaves", style="dim")
            self._draw(page, Group(line, hint))
            if not wait_readable(sys.stdin.fileno(), REDRAW_S):
                continue
            key = _pressed()
            if key == "enter" and text.strip():
                return text.strip()
            if key == "backspace":
                text = text[:-1]
            elif len(key) == 1 and key.isprintable() and len(text) < LONGEST_LINE:
                text += key

    def _leave(self, page: Page) -> None:
        """Quit, if that was meant."""
        text = "Leave? Everything done so far is saved. [bold]y[/] yes   any other key: stay"
        self._draw(page, Text.from_markup(text))
        while not wait_readable(sys.stdin.fileno(), REDRAW_S):
            continue
        if _pressed() in ("y", QUIT.key):
            raise QuitError

    def _draw(self, page: Page, foot: Text | Group) -> None:
        body = Group(_trail(page.step), Text(), Text(page.title, style="bold"), Text(), page.body)
        screen = Group(
            Panel(body, title="spikeloop calibrate", title_align="left", padding=(1, 2)),
            Align.left(Panel(foot, border_style="dim")),
        )
        self._live.update(screen, refresh=True)


@contextmanager
def terminal_face(clock: Clock) -> Iterator[TerminalFace]:
    """The terminal in order for single keys, and as it was afterwards."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    console = Console(stderr=True)
    try:
        tty.setcbreak(handle)
        with Live(
            console=console, screen=True, auto_refresh=False, vertical_overflow="crop"
        ) as live:
            yield TerminalFace(live, clock)
    except KeyboardInterrupt:
        raise QuitError from None
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _pressed() -> str:
    """The key; an arrow or another that sends several bytes counts as none."""
    held = os.read(sys.stdin.fileno(), 64)
    if not held:
        raise QuitError
    text = held.decode("utf-8", "replace")
    if text.startswith("\x1b"):
        return ""
    return _NAMES.get(text[0], text[0].lower() if len(text) == 1 else text[0])


def _keys(choices: Sequence[Choice]) -> Text:
    text = Text()
    for choice in choices:
        text.append(f" {choice.key} ", style="reverse bold")
        text.append(f" {choice.label}    ")
    return text


def _trail(step: str) -> Text:
    """Where we are among the steps."""
    text, i_now = Text(), STEPS.index(step)
    for i, name in enumerate(STEPS):
        style = "green" if i < i_now else "bold reverse" if i == i_now else "dim"
        text.append(f" {i + 1} {name} ", style=style)
        text.append(" ")
    return text
