"""A recording's markers, whatever their type, as texts and as trials."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from streams.errors import RecordingError
from streams.lsl.description import marker_text
from streams.messages import Float64s
from streams.sessions.xdf.loading import Recorded

SHOWN = 10
_PAIR = re.compile(r"(\w+)=(\S+)")


def marker_texts(markers: Recorded) -> list[str]:
    """Each marker as text: numbers as one writes them, several channels with a blank between."""
    return [" ".join(marker_text(value) for value in row).strip() for row in markers.values]


def trials_of(
    texts: Sequence[str], t_s: Float64s, *, trial_start: str, trial_stop: str
) -> list[dict[str, float]]:
    """Make trials from markers, ordered by start, however late the markers came.

    A stop ends the trial with its `i=` (or number), else the one running; one without a stop ends
    with the next start, and the very last is left out.

    Returns:
        `start_s`, `stop_s`, and every `name=number` in the two markers.
    """
    begun: list[dict[str, float]] = []
    for i in np.argsort(t_s, kind="stable"):
        text, at_s = texts[i], float(t_s[i])
        word = _word(text, trial_start, trial_stop)
        if word == trial_start:
            if begun and "stop_s" not in begun[-1]:
                begun[-1]["stop_s"] = at_s
                begun[-1]["unended"] = 1.0
            begun.append({"start_s": at_s} | _numbers(text.removeprefix(trial_start)))
        elif word == trial_stop and begun:
            stated = _numbers(text.removeprefix(trial_stop))
            running = next((one for one in reversed(begun) if _same(one, stated)), None)
            if running is not None and ("stop_s" not in running or "unended" in running):
                running.pop("unended", None)
                running |= stated | {"stop_s": at_s}
    for one in begun:
        one.pop("unended", None)
    return [one for one in begun if "stop_s" in one]


def require_trials(texts: Sequence[str], *, trial_start: str, trial_stop: str) -> None:
    """Refuse markers that make no trial.

    Args:
        texts: all markers' texts.
        trial_start: beginning of the marker that starts a trial.
        trial_stop: beginning of the marker that ends it.

    Raises:
        RecordingError: with ten different ones that came.
    """
    if not texts:
        return
    different = list(dict.fromkeys(texts))
    shown = ", ".join(repr(text) for text in different[:SHOWN])
    more = f" and {len(different) - SHOWN} others" if len(different) > SHOWN else ""
    likely = [text.split()[0] for text in different if text.split()]
    start, stop = [*dict.fromkeys(likely), "START", "STOP"][:2]
    raise RecordingError(
        f"no trial in {len(texts)} markers: no pair of them begins with {trial_start!r} and "
        f"{trial_stop!r}. These came: {shown}{more}. Say how a trial's markers begin, for example "
        f"--trial-start {start!r} --trial-stop {stop!r}, or go without trials: --markers ''"
    )


def _word(text: str, *words: str) -> str | None:
    """Find the longest word that the text begins with; a number only as a whole."""
    fitting = [word for word in words if text.startswith(word) and not _cuts_number(text, word)]
    return max(fitting, key=len, default=None)


def _cuts_number(text: str, word: str) -> bool:
    """Return True if the text goes on with digits of the number that the word ends in."""
    return bool(re.search(r"\d$", word)) and bool(re.match(r"\d|\.\d", text[len(word) :]))


def _same(trial: dict[str, float], stated: dict[str, float]) -> bool:
    return "i" not in stated or "i" not in trial or trial["i"] == stated["i"]


def _numbers(text: str) -> dict[str, float]:
    """`i=3 x=7.1` as numbers; a bare number is `i`."""
    pairs = _PAIR.findall(text) or [("i", text.strip())]
    found = {}
    for name, value in pairs:
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found
