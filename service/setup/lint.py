"""`spikeloop lint`: finds streams, listens to all at once, tells what was found in each."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from service.errors import ConfigError, ExitCode
from service.signals import until_signalled
from streams.clock import MonotonicClock
from streams.lint.findings import Heard, Report
from streams.lint.judge import lint
from streams.lint.kinds import Kind
from streams.lint.listener import Listener
from streams.lsl.inlets import describe, matching_streams, visible_streams

MOST_STREAMS = 16
LOOK_EVERY_S = 0.25
TELL_EVERY_S = 2.0
_MARKS = {"good": "[green]ok[/]", "warn": "[yellow]warn[/]", "stop": "[bold red]stop[/]"}


def lint_streams(
    name: str,
    *,
    stream_type: str,
    hostname: str,
    seconds: float,
    wait_s: float,
    kind: Kind | None,
    columns: Sequence[str],
    as_json: bool,
) -> int:
    """Listen to every stream that matches, and tell what was found.

    Args:
        name: of the stream; "" for any.
        stream_type: LSL type; "" for any.
        hostname: of the sender; "" for any.
        seconds: how long to listen.
        wait_s: how long to look for streams.
        kind: what they carry; as they say themselves if None.
        columns: of spikes whose labels do not tell, one name a channel.
        as_json: print one JSON object.

    Returns:
        The exit code: 0; 1 where a finding spoils decoding; 3 where a stream cannot be read.

    Raises:
        ConfigError: a number is impossible, or too many streams match.
        StreamAbsentError: no stream matches.
    """
    if not (0 < seconds < math.inf and 0 < wait_s < math.inf):
        raise ConfigError("--seconds and --wait must be above 0")
    is_stopped = until_signalled()
    found = matching_streams(stream_type, name=name, hostname=hostname, wait_s=wait_s)
    if len(found) > MOST_STREAMS:
        several = "; ".join(str(describe(info)) for info in found)
        raise ConfigError(
            f"{len(found)} streams match, more than {MOST_STREAMS}: {several}. "
            "Name one, or choose by --type or --hostname"
        )
    visible = visible_streams(0.5)
    heard = listen_to_all([Listener(info, seconds) for info in found], is_stopped)
    reports = [lint(one, visible, kind, columns) for one in heard]
    if as_json:
        sys.stdout.write(json.dumps({"streams": [one.as_json() for one in reports]}) + "\n")
    else:
        _print(reports)
    return exit_code_of(reports)


def exit_code_of(reports: Sequence[Report]) -> ExitCode:
    """Return the worst code."""
    if any(one.is_unfit for one in reports):
        return ExitCode.STREAM
    return ExitCode.GUARD if any(one.worst == "stop" for one in reports) else ExitCode.DONE


def listen_to_all(
    listeners: Sequence[Listener], is_stopped: Callable[[], bool] = lambda: False
) -> list[Heard]:
    """Listen to all at the same time, telling how far it is.

    Args:
        listeners: one a stream.
        is_stopped: asked four times a second; True ends it early.
    """
    errors, clock = Console(stderr=True), MonotonicClock()
    with (
        ThreadPoolExecutor(len(listeners)) as together,
        errors.status("opening") if errors.is_terminal else nullcontext() as status,
    ):
        every_s = TELL_EVERY_S if status is None else LOOK_EVERY_S
        futures = [together.submit(one.listen) for one in listeners]
        t_begin_s = t_told_s = clock.now()
        while wait(futures, timeout=LOOK_EVERY_S).not_done:
            if is_stopped():
                for one in listeners:
                    one.stop()
            if clock.now() >= t_told_s + every_s:
                t_told_s = clock.now()
                came = ", ".join(f"{one.description.name} {one.n_samples}" for one in listeners)
                line = f"{t_told_s - t_begin_s:.0f} s: samples of {came}"
                if status is None:
                    errors.print(line, highlight=False, soft_wrap=True)
                else:
                    status.update(line)
    return [one.result() for one in futures]


def _print(reports: Sequence[Report]) -> None:
    console = Console()
    for report in reports:
        console.print(_screen(report), Text())


def _screen(report: Report) -> Group:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(width=4)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for one in report.findings:
        told = Text(one.found)
        if one.change:
            told.append(f"\n{one.change}", style="bold")
        table.add_row(Text.from_markup(_MARKS[one.level]), one.what, told)
    head = Text(f"{report.stream}", style="bold")
    line = f"read as {report.kind}; {report.n_samples} samples in {report.seconds:.1f} s"
    return Group(head, Text(line), table)
