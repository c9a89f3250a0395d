"""Channels of a position by their labels: the thing that moves, and its axis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_FORMS = (
    re.compile(r"(?P<axis>[xyz])(?:[\s_.:-]*(?:pos|position))?", re.I),
    re.compile(r"(?P<body>.+?)[\s_.:-]+(?P<axis>[xyz])", re.I),
    re.compile(r"(?P<body>.*[a-z0-9])(?P<axis>[XYZ])"),
)
_BETWEEN = re.compile(r"[\s_.:-]+")
_POSITION = re.compile(r"_?(?:pos|position)$")


def axis_of(label: str) -> tuple[str, str] | None:
    """Read the moving thing ("" if not said) and the axis from a label; None if it has no axis.

    `cursor_x`, `Cursor X`, `cursorX` and `cursor_position_x` are ("cursor", "x"); `X`, `pos_x` and
    `x_pos` are ("", "x").
    """
    for form in _FORMS:
        if match := form.fullmatch(label.strip()):
            named = match.groupdict().get("body") or ""
            body = _POSITION.sub("", _BETWEEN.sub("_", named.lower()).strip("_"))
            return body, match["axis"].lower()
    return None


def axes_of(labels: Sequence[str]) -> Mapping[str, list[int]]:
    """Group channels by the thing that moves, in axis order.

    A thing with two channels for one axis is left out: nothing tells which one counts.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    for i, label in enumerate(labels):
        if (named := axis_of(label)) is not None:
            found.setdefault(named[0], []).append((named[1], i))
    return {
        body: [i for _, i in sorted(axes)]
        for body, axes in found.items()
        if len({axis for axis, _ in axes}) == len(axes)
    }


def named_channels(labels: Sequence[str], channels: Sequence[str]) -> list[int] | None:
    """Find the named channels, whatever their case; None if one is missing or there twice."""
    lower = [label.lower() for label in labels]
    if any(lower.count(one.lower()) != 1 for one in channels):
        return None
    return [lower.index(one.lower()) for one in channels]
