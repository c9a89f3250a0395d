"""Columns in an event stream: its labels tell what each channel holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from streams.errors import LayoutError
from streams.lsl.description import StreamDescription

KNOWN_LABELS = {
    "channel": (
        "channel", "channels", "channel_id", "channel_index", "channel_number", "ch", "chan",
        "chan_id", "electrode", "electrode_id", "electrode_number", "elec",
    ),
    "unit": (
        "unit", "units", "unit_id", "unit_index", "unit_number", "sort_code", "sortcode", "sort_id",
        "cluster", "cluster_id", "neuron", "neuron_id",
    ),
    "seq": ("seq", "sequence", "sequence_number", "seq_number", "seq_no"),
}  # fmt: skip
"""Labels that tell a column, in lower case with `_` between words."""

_ROLE_OF = {label: role for role, labels in KNOWN_LABELS.items() for label in labels}
_SPIKE_EVENTS = "SpikeEvents"


class Columns(NamedTuple):
    """Column indices; None where the stream has none."""

    channel: int | None
    unit: int
    seq: int | None


def columns_of(
    stream: StreamDescription, labels: Sequence[str], named: Sequence[str] = ()
) -> Columns:
    """Find an event stream's columns.

    Args:
        stream: its description.
        labels: its channel labels, "" where it has none.
        named: `[input] columns`, one name a channel; names other than channel, unit and seq (or
            a known label of these) are columns to leave out. () to go by the labels.

    Raises:
        LayoutError: the labels do not tell, or `named` does not fit; the text shows the line
            of the config that would.
    """
    # The config knows better than labels.
    if named:
        return _named(stream, labels, named)
    roles = [_ROLE_OF.get(_plain(label), "") for label in labels]
    if len(labels) == stream.n_channels and all(roles) and _is_complete(roles):
        return _columns(roles)
    if stream.type == _SPIKE_EVENTS and stream.n_channels >= 2:  # the waveform follows
        if not any(roles):
            return Columns(channel=0, unit=1, seq=None)
        if _is_complete(roles) and "channel" in roles:
            return _columns(roles)
    raise LayoutError(_why(stream, labels, roles) + _line(stream, labels, roles))


def _named(stream: StreamDescription, labels: Sequence[str], named: Sequence[str]) -> Columns:
    roles = [_ROLE_OF.get(_plain(name), "") for name in named]
    if len(named) != stream.n_channels:
        why = f"`columns` names {len(named)} columns, and it has {stream.n_channels} channels"
        raise LayoutError(f"{why} ({_listed(labels) or 'without labels'})")
    if not _is_complete(roles):
        raise LayoutError(
            f"`columns` is {list(named)}: it must name `unit` once, `channel` and `seq` at most "
            "once; other names are columns to leave out",
        )
    return _columns(roles)


def _columns(roles: Sequence[str]) -> Columns:
    def place(role: str) -> int | None:
        return roles.index(role) if role in roles else None

    return Columns(place("channel"), roles.index("unit"), place("seq"))


def _is_complete(roles: Sequence[str]) -> bool:
    counts = {role: roles.count(role) for role in KNOWN_LABELS}
    return counts["unit"] == 1 and counts["channel"] <= 1 and counts["seq"] <= 1


def _plain(label: str) -> str:
    return "_".join(label.lower().replace("-", " ").replace("_", " ").split())


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(label or "(none)" for label in labels) if any(labels) else ""


def _why(stream: StreamDescription, labels: Sequence[str], roles: Sequence[str]) -> str:
    if not any(labels):
        return f"its {stream.n_channels} channels at no regular rate carry no labels"
    if not any(roles):
        return f"its channels are {_listed(labels)}, and none of these labels is known here"
    strange = [label or "(none)" for label, role in zip(labels, roles, strict=True) if not role]
    if strange:
        return f"its channels are {_listed(labels)}, and {', '.join(strange)} is not known here"
    return f"its channels are {_listed(labels)}: one of them must be `unit`, each at most once"


def _line(stream: StreamDescription, labels: Sequence[str], roles: Sequence[str]) -> str:
    """Show the config line that would read it."""
    n = stream.n_channels
    # Suggest the names that are known, and `unit` where only a channel is.
    if any(roles):
        names = [role or label or "other" for label, role in zip(labels, roles, strict=True)]
        if roles.count("unit") == 0 and roles.count("channel") == 1:
            names[roles.index("channel")] = "unit"
    else:
        names = (["unit"] if n == 1 else ["channel", "unit"]) + ["other"] * max(0, n - 2)
    line = f"columns = {json.dumps(names if n <= 8 else [*names[:4], '...'])}"
    return f". Name one column a channel under [input] (others are left out), perhaps `{line}`"
