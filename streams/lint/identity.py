"""Identity: the `source_id`, the host, and other streams that look the same."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

from streams.lint.findings import Finding, Heard
from streams.lsl.description import StreamDescription

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
_HEX = re.compile(r"(?<![0-9a-f])(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{16,}", re.I)
_HASH = re.compile(r"^-?\d{15,20}$")
_TIME = re.compile(r"(?<!\d)1[6-9]\d{8}(\d{3})?(?!\d)|(?<!\d)20\d{2}-?[01]\d-?[0-3]\d[T_ -]?\d{2}")
_NUMBER = re.compile(r"(?<![\d.])(\d{2,7})(?![\d.])")
_PID = re.compile(r"pid\W*\d+", re.I)
NAMED_AT_MOST = 6
FIXED = "Give the outlet a `source_id` that stays: a serial number, or its name and host."


def is_process(number: int) -> bool:
    """Return True if a process with this number runs on this machine."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def made_anew(source_id: str, is_pid: Callable[[int], bool]) -> str:
    """Say what a `source_id` looks like that changes with every start; "" where it does not.

    Args:
        source_id: as the stream has it.
        is_pid: tells whether a process with this number runs on the sender's machine.
    """
    if _UUID.search(source_id):
        return "a UUID"
    if _HASH.match(source_id):
        return "pylsl's own default, which is another with every start"
    if _TIME.search(source_id):
        return "the time of its start"
    if _HEX.search(source_id):
        return "a random number"
    if _PID.search(source_id) or any(is_pid(int(n)) for n in _NUMBER.findall(source_id)):
        return "the number of its process"
    return ""


def identity_findings(heard: Heard, visible: Sequence[StreamDescription]) -> Iterator[Finding]:
    """Judge how the stream can be found again, and whether it can be told from others.

    Args:
        heard: the stream.
        visible: all streams that answer, this one too.
    """
    stream = heard.description
    yield _source_id(stream, is_process if heard.same_host else lambda number: False)
    yield from _doubles(stream, [one for one in visible if one.uid != stream.uid])
    where = "this machine" if heard.same_host else "another machine"
    yield Finding("good", "host", f"{stream.hostname}, {where}", "", {"same_host": heard.same_host})


def label_findings(heard: Heard) -> Iterator[Finding]:
    """Judge whether each channel has its own label."""
    named = [label for label in heard.labels if label]
    n = heard.description.n_channels
    if len(named) < n:
        yield Finding(
            "warn", "labels", f"{n - len(named)} of {n} channels have none",
            "Label every channel: a listener should not guess what it carries.",
        )  # fmt: skip
    if twice := sorted({label for label in named if named.count(label) > 1}):
        yield Finding(
            "warn", "labels", f"several channels are called {', '.join(twice[:NAMED_AT_MOST])}",
            "Give each channel a label of its own.",
        )  # fmt: skip


def _source_id(stream: StreamDescription, is_pid: Callable[[int], bool]) -> Finding:
    if not stream.source_id:
        return Finding("warn", "source_id", "empty: no listener finds it again", FIXED)
    if looks := made_anew(stream.source_id, is_pid):
        found = f"{stream.source_id!r} looks like {looks}: after a restart it is another stream"
        return Finding("warn", "source_id", found, FIXED)
    return Finding("good", "source_id", repr(stream.source_id))


def _doubles(stream: StreamDescription, others: Sequence[StreamDescription]) -> Iterator[Finding]:
    same_id = [one for one in others if stream.source_id and one.source_id == stream.source_id]
    same = [one for one in others if (one.name, one.type) == (stream.name, stream.type)]
    if same_id:
        names = ", ".join(f"{one.name!r} on {one.hostname}" for one in same_id)
        yield Finding(
            "stop", "doubles", f"{names} has the same source_id: a listener may recover to it",
            "Give each outlet a `source_id` of its own.",
        )  # fmt: skip
    elif same:
        hosts = ", ".join(f"source_id {one.source_id!r} on {one.hostname}" for one in same)
        yield Finding(
            "warn", "doubles", f"another stream has this name and type: {hosts}",
            "Name this one in a config by `source_id` or `hostname` too.",
        )  # fmt: skip
