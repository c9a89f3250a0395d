"""Choices for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from export.shipped import bundle_path
from service.config import ServeConfig


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Choices for a page.

    Attributes:
        decode: the daemon's decodes; "" to ask the daemon at `control`.
        control: the daemon's control socket; "" for none.
        keys: file with the client's CURVE keys; None for none.
        run: folder of a recorded run, shown in place of a daemon; None for a daemon.
        bundle: the decoder on this machine; None if it does not lie here.
        array, columns, ignore_units: how spikes are read, as in the daemon's `[input]`.
        position: name of the LSL stream of positions; "" to choose by the stream of spikes.
        markers: the same for markers.
        bind: HOST:PORT to serve at, port 0 for a free one; "" for 127.0.0.1:5580, or a free port
            if that is in use.
        token: file with the token of those who may command; None for a page to look at.
        origins: where a proxy shows the page, such as `https://page.lab.org`.
    """

    decode: str = ""
    control: str = ""
    keys: Path | None = None
    run: Path | None = None
    bundle: Path | None = None
    array: str = ""
    columns: Sequence[str] = ()
    ignore_units: Sequence[int | str] = ()
    position: str = ""
    markers: str = ""
    bind: str = ""
    token: Path | None = None
    origins: Sequence[str] = ()


def with_config(options: PageOptions, config: ServeConfig) -> PageOptions:
    """Fill in what a daemon's config says: addresses, decoder, and how its spikes are read."""
    given, output = config.input, config.output
    is_addressed = bool(options.decode or options.control)
    return replace(
        options,
        decode=options.decode if is_addressed else output.decode,
        control=options.control if is_addressed else output.control,
        bundle=options.bundle or bundle_path(config.decoder.bundle),
        array=given.array,
        columns=given.columns,
        ignore_units=given.ignore_units,
    )
