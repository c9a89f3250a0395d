"""What came as markers, and which lines of the config would make trials of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from calibration.wizard.config import MarkersSection

SHOWN = 10


def shown(texts: Sequence[str]) -> str:
    """Up to ten different markers that came."""
    different = list(dict.fromkeys(texts))
    named = ", ".join(repr(text) for text in different[:SHOWN])
    more = f" and {len(different) - SHOWN} others" if len(different) > SHOWN else ""
    return f"{len(texts)} markers came: {named}{more}"


def how_trials_are_marked(config: MarkersSection, texts: Sequence[str]) -> str:
    """Which lines of the config to change so that the markers that came make trials."""
    words = list(dict.fromkeys(text.split()[0] for text in texts if text.split()))
    start, stop = [*words, *("...", "...")][:2]
    return (
        f"no pair of them begins with {config.trial_start!r} and {config.trial_stop!r}. Say under "
        f"[markers] how yours begin, in the way of `trial_start = {json.dumps(start)}` and "
        f"`trial_stop = {json.dumps(stop)}`"
    )
