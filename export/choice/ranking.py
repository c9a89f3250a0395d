"""Backends of one bundle, the fastest first, with the times that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ranking:
    """The backends that passed the gate on this machine.

    Attributes:
        step_ms: per backend the median of a step after a wait, as in the loop, milliseconds;
            the fastest first.
        back_to_back_ms: the same of steps one after the other, at the largest bucket.
        remembered: it was read from the cache folder; nothing was timed.
        note: why it will not be remembered; "" if it is.
    """

    step_ms: Mapping[str, float]
    back_to_back_ms: Mapping[str, float]
    remembered: bool = False
    note: str = ""

    @property
    def order(self) -> tuple[str, ...]:
        """Their names, the fastest first."""
        return tuple(self.step_ms)

    def as_dict(self) -> dict[str, Any]:
        """Return it as `status` and the event `started` tell it."""
        return {"asked": "auto"} | asdict(self)
