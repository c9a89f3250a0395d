"""A command that fails in a way that nobody expects, beside those of a daemon of a test.

Imported before `spikeloop` starts, it stands in the table of commands.
"""

from __future__ import annotations

from typing import Any

from service.daemon.control import HANDLERS, Handler

NAME = "broken"


def _broken(daemon: object, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"never": arguments["not there"]}


HANDLERS[NAME] = Handler(_broken)
