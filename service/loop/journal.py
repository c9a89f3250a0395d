"""The journal: told, in order, of everything that a decode depends on, to make it again later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.loop.intake.arrivals import Arrival
from streams.messages import TokenWindow


class Journal:
    """Notes what the loop did, and returns at once; decoders are known by their numbers.

    By itself it notes nothing.
    """

    def opened(self, number: int, facts: Mapping[str, Any]) -> None:
        """Note a decoder, with zero memory; any thread may."""

    def arrival(self, arrival: Arrival, known: np.ndarray) -> None:
        """Note an arrival that is being admitted; (n_source_units,) `known` units alone are."""

    def cut(self, k: int, end_us: int, rule: str) -> None:
        """Note that beat k's bin is cut by a rule; "" if its decode is not published."""

    def closed(self, end_us: int) -> None:
        """Note that the bins up to this end are closed, though they were not cut."""

    def ran(
        self, number: int, k: int, window: TokenWindow, lead_s: float, token_cap: int | None
    ) -> None:
        """Note that a decoder ran beat k's bin, under this cap; any thread may."""

    def failed(self, number: int, k: int, error: str) -> None:
        """Note that a decoder's backend failed on beat k's bin; any thread may."""

    def forgot(self, number: int, k: int) -> None:
        """Note that a decoder's memory begins anew after beat k; any thread may."""

    def commanded(self, change: str, detail: Mapping[str, Any]) -> None:
        """Note a command that is carried out here."""


NO_JOURNAL = Journal()
"""Notes nothing."""
