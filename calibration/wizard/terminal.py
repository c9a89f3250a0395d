"""The wizard's face in a terminal: one screen a step, one key a choice."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.align import Align
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.text import Text

from calibration.wizard.face import NEXT, BackError, Choice, Page, QuitError
from calibration.wizard.wizard import STEPS
from streams.clock import Clock, wait_readable

REDRAW_S = 0.25
BACK, QUIT = Choice("b", "back"), Choice("q", "quit")
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
        offered = [*choices, *([BACK] if page.step != STEPS[0] else []), QUIT]
        if wait_s is None:
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)  # what was typed ahead of it
        t_end_s = float("inf") if wait_s is None else self._clock.now() + wait_s
        self._draw(page, _keys(offered))
        while True:
            left_s = max(0.0, min(t_end_s - self._clock.now(), REDRAW_S))
            if wait_readable(sys.stdin.fileno(), left_s):
                key = _pressed()
                if key == QUIT.key:
                    self._leave(page)
                elif key == BACK.key and BACK in offered:
                    raise BackError
                elif key in [choice.key for choice in choices]:
                    return key
                self._draw(page, _keys(offered))
            if self._clock.now() >= t_end_s:
                return None

    def write(self, page: Page, prompt: str) -> str:
        """Ask for a line; enter ends it once it is not empty."""
        text = ""
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        while True:
            line = Text.assemble((f"{prompt} ", "bold"), text, ("_", "blink"))
            hint = Text("type the reason, then enter; ctrl-c leaves", style="dim")
            self._draw(page, Group(line, hint))
            if not wait_readable(sys.stdin.fileno(), REDRAW_S):
                continue
            for letter in _typed():
                if letter in "\r\n" and text.strip():
                    return text.strip()
                if letter in "\x7f\x08":
                    text = text[:-1]
                elif letter.isprintable() and len(text) < LONGEST_LINE:
                    text += letter

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
        page_panel = Panel(body, title="spikeloop calibrate", title_align="left", padding=(1, 2))
        screen = Screen(page_panel, Align.left(Panel(foot, border_style="dim")))
        self._live.update(screen, refresh=True)


class Screen:
    """A page and its foot, which stays in view where the window is too low for both.

    Args:
        page: cut off at the bottom then.
        foot: the keys.
    """

    def __init__(self, page: RenderableType, foot: RenderableType) -> None:
        self._page, self._foot = page, foot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's protocol: the lines from the top."""
        natural = options.reset_height()
        page = console.render_lines(self._page, natural, pad=False)
        foot = console.render_lines(self._foot, natural, pad=False)
        room = max(console.size.height - len(foot), 1)
        if len(page) > room:
            told = Text(f"  {len(page) - room + 1} more lines: make this window higher", "yellow")
            page = [*page[: room - 1], *console.render_lines(told, natural, pad=False)[:1]]
        for i, line in enumerate([*page, *foot]):
            yield from ([Segment.line()] if i else [])
            yield from line


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


def _typed() -> str:
    """What was typed; an arrow or another key that sends an escape counts as nothing."""
    held = os.read(sys.stdin.fileno(), 1024)
    if not held:
        raise QuitError
    text = held.decode("utf-8", "replace")
    return "" if text.startswith("\x1b") else text


def _pressed() -> str:
    """The key; the first, where several were hit."""
    text = _typed()[:1]
    return "enter" if text in ("\r", "\n") else text.lower()


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
