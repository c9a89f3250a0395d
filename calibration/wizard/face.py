"""How the wizard shows itself and asks: pages, choices, and the face that asks nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import RenderableType

from streams.clock import Clock


class BackError(Exception):
    """The operator wants to go back a step."""


class QuitError(Exception):
    """The operator wants to leave; everything done is saved."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What may be chosen: a key to press, and what it does."""

    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown.

    Attributes:
        step: name of the step that it belongs to.
        title: what is going on.
        body: what there is to see.
        told: one line for those who only read a log.
    """

    step: str
    title: str
    body: RenderableType = ""
    told: str = ""


NEXT = Choice("enter", "go on")


class Face(Protocol):
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
            Key of the choice; None when the time passed.

        Raises:
            BackError, QuitError: as the operator wants; both always work.
        """

    def write(self, page: Page, prompt: str) -> str:
        """Ask for a line of text, not empty."""


class AutoFace:
    """Asks nobody; tells on standard error what happens.

    Args:
        clock: to wait by.
        tell: where lines go.
    """

    def __init__(self, clock: Clock, tell: Callable[[str], object] | None = None) -> None:
        self._clock = clock
        self._tell = tell or (lambda line: sys.stderr.write(line + "\n"))
        self._told = ""

    def ask(
        self, page: Page, choices: Sequence[Choice] = (NEXT,), wait_s: float | None = None
    ) -> str | None:
        """The first choice at once, or nothing after `wait_s`."""
        if page.told and page.told != self._told:
            self._told = page.told
            self._tell(f"{page.step}: {page.told}")
        if wait_s is None:
            return choices[0].key
        self._clock.sleep_until(self._clock.now() + wait_s)
        return None

    def write(self, page: Page, prompt: str) -> str:
        """Nobody answers; nothing asks."""
        return "unattended"
