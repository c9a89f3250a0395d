"""Markers as text, whatever the format in which they are sent."""

from __future__ import annotations

from typing import Any


def marker_text(value: Any) -> str:
    """A marker as text: `trial_start`; numbers as `7`, `0.5`, and `7` for 7.0 too."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else str(value)
