"""The wizard's pages and questions: in a terminal, one key a choice, or with nobody to ask."""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.align import Align
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.text import Text

from calibration.wizard.results import STEPS
from streams.clock import Clock, wait_readable

REDRAW_S = 0.25
# A reason, not an essay: it stands in one line of the report.
LONGEST_LINE = 300


class BackError(Exception):
    """The operator wants to go back a step."""


class QuitError(Exception):
    """The operator wants to leave; everything done is saved."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A key to press, and the effect it has."""

    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page to show.

    Attributes:
        step: name of its step.
        title: what is going on.
        body: what there is to see.
        log_line: for those who only read a log.
    """

    step: str
    title: str
    body: RenderableType = ""
    log_line: str = ""


NEXT, BACK, QUIT = Choice("enter", "go on"), Choice("b", "back"), Choice("q", "quit")


class WizardUI(Protocol):
    """Between the wizard and whoever runs it."""

    def ask(
        self, page: Page, choices: Sequence[Choice] = (NEXT,), wait_s: float | None = None
    ) -> str | None:
        """Show a page and wait for a choice.

        Args:
            page: to show.
            choices: the first is what goes without asking.
            wait_s: at most so long; None for as long as it takes.

        Returns:
            The choice's key; None when the time passed.

        Raises:
            BackError, QuitError: as the operator wants; both always work.
        """

    def write(self, page: Page, prompt: str) -> str:
        """Ask for a line, not empty."""


class UnattendedUI:
    """Asks nobody; tells on standard error what happens.

    Args:
        clock: to wait by.
        tell: where lines go.
    """

    def __init__(self, clock: Clock, tell: Callable[[str], object] | None = None) -> None:
        self._clock = clock
        self._tell = tell or (lambda line: sys.stderr.write(line + "\n"))
        self._last_line = ""

    def ask(
        self, page: Page, choices: Sequence[Choice] = (NEXT,), wait_s: float | None = None
    ) -> str | None:
        """The first choice at once, or nothing after `wait_s`."""
        if page.log_line and page.log_line != self._last_line:
            self._last_line = page.log_line
            self._tell(f"{page.step}: {page.log_line}")
        if wait_s is None:
            return choices[0].key
        self._clock.sleep_until(self._clock.now() + wait_s)
        return None

    def write(self, page: Page, prompt: str) -> str:
        """Nobody answers; nothing asks."""
        return "unattended"


class TerminalUI:
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
        """Show a page; the chosen key, or None after `wait_s`."""
        offered = [*choices, *([BACK] if page.step != STEPS[0] else []), QUIT]
        # Keys typed ahead were meant for another page.
        if wait_s is None:
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)  # what was typed ahead of it
        t_end_s = float("inf") if wait_s is None else self._clock.now() + wait_s
        self._draw(page, _keys(offered))
        while True:
            # Drawn again now and then, for the window may have changed its size.
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
        # Rich would cut off the foot; what can be pressed must stay in view.
        page = console.render_lines(self._page, natural, pad=False)
        foot = console.render_lines(self._foot, natural, pad=False)
        room = max(console.size.height - len(foot), 1)
        if len(page) > room:
            note = Text(f"  {len(page) - room + 1} more lines: make this window higher", "yellow")
            page = [*page[: room - 1], *console.render_lines(note, natural, pad=False)[:1]]
        for i, line in enumerate([*page, *foot]):
            yield from ([Segment.line()] if i else [])
            yield from line


@contextmanager
def terminal_ui(clock: Clock) -> Iterator[TerminalUI]:
    """The terminal in order for single keys, and as it was afterwards."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    console = Console(stderr=True)
    try:
        # Not raw: ctrl-c must still end the wizard.
        tty.setcbreak(handle)
        with Live(
            console=console, screen=True, auto_refresh=False, vertical_overflow="crop"
        ) as live:
            yield TerminalUI(live, clock)
    except KeyboardInterrupt:
        raise QuitError from None
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _typed() -> str:
    """Read what was typed; an arrow or another key that sends an escape counts as nothing."""
    typed = os.read(sys.stdin.fileno(), 1024)
    # The terminal was closed.
    if not typed:
        raise QuitError
    text = typed.decode("utf-8", "replace")
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
    """Show the steps, this one marked."""
    text, i_now = Text(), STEPS.index(step)
    for i, name in enumerate(STEPS):
        style = "green" if i < i_now else "bold reverse" if i == i_now else "dim"
        text.append(f" {i + 1} {name} ", style=style)
        text.append(" ")
    return text
