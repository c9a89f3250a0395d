"""`spikeloop lint`: what is wrong with a stream, and what to change."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from streams.lint.kinds import KINDS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

CODES = """\
exit codes:
  0  nothing found that spoils decoding
  1  findings marked `stop`: `serve` would refuse the stream or flag its decodes
  2  wrong usage
  3  no such stream, or one that cannot be opened or read as spikes

Ctrl-C ends the listening; what was found so far is told, with the code of that.
"""


def add_commands(commands: Commands) -> None:
    """Add the command."""
    p = commands.add_parser(
        "lint",
        help="listen to LSL streams and say what to change",
        description="Listen to LSL streams of spikes, counts, markers or positions, each that "
        "matches, and say what its owner should change.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("name", nargs="?", default="", metavar="NAME", help="of the stream; else any")
    p.add_argument("--type", default="", help="LSL type; else any")
    p.add_argument("--hostname", default="", help="of the sender; else any")
    p.add_argument("--seconds", type=float, default=10.0, help="how long to listen")
    p.add_argument("--wait", type=float, default=3.0, help="seconds to look for streams")
    p.add_argument("--kind", choices=KINDS, default=None, help="else by type, format and labels")
    p.add_argument(
        "--columns", default="", metavar="NAME,NAME", help="of spikes whose labels do not tell"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.set_defaults(run=_lint, uses_lsl=True)


def _lint(a: argparse.Namespace) -> int:
    from service.lint import lint_streams

    return lint_streams(
        a.name,
        stream_type=a.type,
        hostname=a.hostname,
        seconds=a.seconds,
        wait_s=a.wait,
        kind=a.kind,
        columns=tuple(name.strip() for name in a.columns.split(",") if name.strip()),
        as_json=a.json,
    )
