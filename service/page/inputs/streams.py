"""The streams that a page looks for: spikes as the daemon reads them, positions, markers."""

from __future__ import annotations

from collections.abc import Callable

from service.page.inputs.lsl import Stream
from streams.errors import StreamAbsentError
from streams.lsl.inlets import Inlet, describe, find_inlet, matching_streams

SEARCH_S, BUDGET_PER_S = 2.0, 200_000.0
SLOW_BUDGET_PER_S = 5_000.0


def spikes_stream(name_of: Callable[[], str]) -> Stream:
    """Open the stream that the daemon decodes; `name_of` tells its name, "" until it is known."""

    def find() -> Inlet:
        name = name_of()
        if not name:
            raise StreamAbsentError("the daemon has not said yet which stream it decodes")
        return find_inlet(
            "", name=name, budget_per_s=BUDGET_PER_S, timeout_s=SEARCH_S, recover=False
        )

    return Stream(find)


def other_stream(kind: str, name: str, name_of: Callable[[], str]) -> Stream:
    """Open a stream of positions or markers: the named one, or the one that goes with the spikes.

    Args:
        kind: LSL type.
        name: of the stream; "" to choose one.
        name_of: tells the name of the stream of spikes.
    """

    def find() -> Inlet:
        if name:
            return find_inlet(
                kind, name=name, budget_per_s=SLOW_BUDGET_PER_S, timeout_s=SEARCH_S, recover=False
            )
        spikes = name_of()
        if not spikes:
            raise StreamAbsentError("the stream of spikes is not known yet")
        found = matching_streams(kind, wait_s=SEARCH_S)
        # Of several, one that is named after the stream of spikes belongs to it.
        near = [info for info in found if info.name().startswith(spikes)]
        chosen = near if near else found
        if len(chosen) != 1:
            told = ", ".join(str(describe(info)) for info in chosen)
            raise StreamAbsentError(f"{len(chosen)} streams of type {kind!r}; name one: {told}")
        return Inlet(chosen[0], SLOW_BUDGET_PER_S, recover=False)

    return Stream(find)
