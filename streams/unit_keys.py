"""Unit keys: `ch12/u1` for a channel and unit, `u17` for a bare unit, perhaps after `array:`."""

from __future__ import annotations

import re

from streams.errors import StreamsError

_KEY = re.compile(r"(?:ch(\d+)/)?u(\d+)")


def parse_key(key: str) -> tuple[int, ...]:
    """`ch12/u1` -> (12, 1); `u17` -> (17,).

    Raises:
        StreamsError: the key has neither form.
    """
    match = _KEY.fullmatch(key.rpartition(":")[2])
    if match is None:
        raise StreamsError(f"unit key {key!r} is neither `ch<channel>/u<unit>` nor `u<id>`")
    return tuple(int(number) for number in match.groups() if number is not None)
