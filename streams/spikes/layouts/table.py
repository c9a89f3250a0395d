"""Table of input layouts; a new one needs a line here and a row in the docs.

`docs/extending.md` has a worked example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from streams.errors import LayoutError, StreamUnfitError
from streams.lsl.description import StreamDescription
from streams.spikes.layouts.counts import open_counts
from streams.spikes.layouts.events import open_events
from streams.spikes.layouts.layout import Layout, LayoutOptions


class LayoutKind(NamedTuple):
    """One kind of layout.

    Attributes:
        told: what is read, for the error that refuses a stream.
        fits: recognises this kind by a stream's description and labels.
        open: makes the layout, from description, labels and options; raises `LayoutError`.
    """

    told: str
    fits: Callable[[StreamDescription, Sequence[str]], bool]
    open: Callable[[StreamDescription, Sequence[str], LayoutOptions], Layout]


LAYOUTS: list[LayoutKind] = [
    LayoutKind(
        "irregular integers with channels labelled unit, channel and unit, perhaps seq; type "
        "SpikeEvents [channel, unit, waveform]",
        lambda stream, labels: stream.rate_hz <= 0,
        open_events,
    ),
    LayoutKind(
        "counts at a regular rate with one labelled channel a unit",
        lambda stream, labels: stream.rate_hz > 0,
        open_counts,
    ),
]
"""The first kind that fits a stream reads it."""

DEFAULTS = LayoutOptions()


def layout_of(
    stream: StreamDescription, labels: Sequence[str], options: LayoutOptions = DEFAULTS
) -> Layout:
    """Choose a stream's layout.

    Args:
        stream: its description.
        labels: its channel labels, where it has any.
        options: the config's choices.

    Raises:
        StreamUnfitError: no layout fits; the text says what the stream is and what is read.
    """
    if stream.format in ("string", "undefined"):
        raise _unfit(stream, f"its values are of format {stream.format}")
    # The last two kinds together fit every stream.
    kind = next(kind for kind in LAYOUTS if kind.fits(stream, labels))
    try:
        return kind.open(stream, labels, options)
    except LayoutError as err:
        raise _unfit(stream, str(err)) from err


def resumed_layout(
    before: Layout, stream: StreamDescription, labels: Sequence[str], options: LayoutOptions
) -> Layout:
    """Choose the layout when a stream is back: its labels are read anew, indices stay.

    Raises:
        StreamUnfitError: no layout fits, or the stream is another one now.
    """
    now = layout_of(stream, labels, options)
    # Keys of another kind would name other units.
    if type(now) is not type(before):
        raise _unfit(stream, "it came back as another kind of stream")
    try:
        now.resume(before, options.known_keys)
    except LayoutError as err:
        raise _unfit(stream, str(err)) from err
    return now


def _unfit(stream: StreamDescription, why: str) -> StreamUnfitError:
    read = "; ".join(kind.told for kind in LAYOUTS)
    return StreamUnfitError(
        f"LSL stream {stream} cannot be read as spikes: {why}. Read are: {read}."
    )
