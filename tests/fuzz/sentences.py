"""How a surface may meet an input: it takes it, or it refuses it by a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LETTERS_AT_MOST = 20_000


def check_refusal(call: Callable[[], Any], *errors: type[Exception]) -> str:
    """The sentence of the error that refused it, "" if it was taken; other errors pass through."""
    try:
        call()
    except errors as err:
        text = str(err)
        assert text.strip()
        assert len(text) < LETTERS_AT_MOST
        assert "Traceback" not in text
        return text
    return ""
