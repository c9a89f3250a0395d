"""Channels of a position by their labels: what moves, and along which axis."""

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
    """What moves ("" where the label does not say) and the axis; None where it names none.

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
    """The channels of each thing that moves, in the order of its axes.

    A thing with two channels of one axis is left out: which of them counts cannot be told.
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
    """Where the named channels are, whatever their case; None where one is not, or is twice."""
    lower = [label.lower() for label in labels]
    if any(lower.count(one.lower()) != 1 for one in channels):
        return None
    return [lower.index(one.lower()) for one in channels]
