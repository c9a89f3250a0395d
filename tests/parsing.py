"""What the command line makes of words, without running them."""

from __future__ import annotations

from typing import Any

import typer

from service.cli import make_app


def parsed(words: list[str]) -> dict[str, Any]:
    """The arguments and options of a command, by the name of its parameter."""
    commands: Any = typer.main.get_command(make_app())
    context = commands.commands[words[0]].make_context(words[0], words[1:])
    read: dict[str, Any] = context.params
    return read
