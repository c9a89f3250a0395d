"""`spikeloop lint`: what is wrong with a stream, and what to change."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from service.cli.options import Command, Json, arg, listed, opt, quieten_lsl
from streams.lint.kinds import Kind


def lint(
    name: Annotated[str, arg("NAME", "Name of the stream; else any.")] = "",
    stream_type: Annotated[str, Option("--type", help="LSL type; else any.")] = "",
    hostname: Annotated[str, opt("Host of the sender; else any.")] = "",
    seconds: Annotated[float, opt("How long to listen.")] = 10.0,
    wait: Annotated[float, opt("Seconds to look for streams.")] = 3.0,
    kind: Annotated[Kind | None, opt("Else by type, format and labels.")] = None,
    columns: Annotated[str, opt("Columns of unlabelled spikes.", "NAME,NAME")] = "",
    as_json: Json = False,
) -> int:
    """Listen to LSL streams and say what their owner should change.

    Each stream of spikes, counts, markers or positions that matches is listened to. Ctrl-C ends
    the listening; what was found so far is told, with the code of that.

    \b
    exit codes:
      0  nothing found that spoils decoding
      1  findings marked `stop`: `serve` would refuse the stream or flag its decodes
      2  wrong usage
      3  no such stream, or one that cannot be opened or read as spikes
    """  # noqa: D301 - \b keeps the lines of a paragraph in the help
    quieten_lsl()
    from service.lint import lint_streams

    return lint_streams(
        name,
        stream_type=stream_type,
        hostname=hostname,
        seconds=seconds,
        wait_s=wait,
        kind=kind,
        columns=tuple(listed(columns)),
        as_json=as_json,
    )


COMMANDS: dict[str, Command] = {"lint": lint}
