"""Unit keys: `ch12/u1` for a channel and unit, `u17` for a bare unit, perhaps after `array:`."""

from __future__ import annotations

from streams.errors import StreamsError


def parse_key(key: str) -> tuple[int, ...]:
    """`ch12/u1` -> (12, 1); `u17` -> (17,).

    Raises:
        StreamsError: the key has neither form.
    """
    parts = key.rpartition(":")[2].split("/")
    try:
        if len(parts) == 2 and parts[0].startswith("ch") and parts[1].startswith("u"):
            return int(parts[0][2:]), int(parts[1][1:])
        if len(parts) == 1 and parts[0].startswith("u"):
            return (int(parts[0][1:]),)
    except ValueError:
        pass
    raise StreamsError(f"unit key {key!r} is neither `ch<channel>/u<unit>` nor `u<id>`")
