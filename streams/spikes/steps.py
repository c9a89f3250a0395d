"""Which code carries a spike from a pull to its token: numpy's, or compiled for the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from streams.clock import stamps_to_us
from streams.messages import Float64s, Int64s
from streams.spikes.layouts import EventLayout
from streams.spikes.ring import SpikeRing
from streams.spikes.tokenizer import Tokenizer


class Steps(NamedTuple):
    """The steps, in their order; whichever code it is, they give the same, bit for bit."""

    event_layout: type[EventLayout] = EventLayout
    stamps_to_us: Callable[[Float64s, float, float], Int64s] = stamps_to_us
    ring: type[SpikeRing] = SpikeRing
    tokenizer: type[Tokenizer] = Tokenizer


PLAIN = Steps()


def compiled_steps() -> Steps:
    """The steps as numba compiles them.

    Raises:
        ImportError: numba is not installed.
    """
    from streams.spikes.compiled import steps as compiled

    return Steps(
        compiled.CompiledEventLayout,
        compiled.stamps_to_us,
        compiled.CompiledRing,
        compiled.CompiledTokenizer,
    )
