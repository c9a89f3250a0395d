"""A journal that keeps the tokens of each beat."""

from __future__ import annotations

from service.loop.journal import Journal
from streams.messages import TokenWindow


class KeptWindows(Journal):
    """Keeps what decoders ran, by beat."""

    def __init__(self) -> None:
        self.windows: dict[int, TokenWindow] = {}

    def ran(
        self, number: int, k: int, window: TokenWindow, lead_s: float, token_cap: int | None
    ) -> None:
        """Keep a copy."""
        self.windows[k] = TokenWindow(
            window.unit.copy(), window.t_rel.copy(), window.count.copy(), window.t_window
        )
