"""The timeline: validity over minutes, and what happened."""

from __future__ import annotations

from collections import deque
from typing import Any

from service.page.inputs.wire import Heard
from service.words import event_in_words

SHOWN_S, KEPT_EVENTS = 300.0, 60
_VALIDITIES = ("ok", "warmup", "stale", "paused", "fault", "silent")


class EventsPanel:
    """Keeps the last events, and stretches of equal validity."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        self._stretches: deque[list[Any]] = deque(maxlen=2000)
        self._n = 0

    def take(self, heard: Heard) -> None:
        """Take in one message."""
        if heard.topic == "event":
            self._n += 1
            event, detail = heard.message["event"], heard.message["detail"]
            told = event_in_words(event, detail)
            level = "warning" if "warning" in detail or event in _GRAVE else "note"
            self._events.append(
                {
                    "n": self._n,
                    "t": heard.t_s,
                    "event": event.replace("_", " "),
                    "told": told,
                    "level": level,
                }
            )

    def mark_validity(self, now_s: float, validity: str) -> None:
        """Note how the validity stands now."""
        if self._stretches and self._stretches[-1][2] == validity:
            self._stretches[-1][1] = now_s
        else:
            self._stretches.append([now_s, now_s, validity])
        while self._stretches and self._stretches[0][1] < now_s - SHOWN_S:
            self._stretches.popleft()

    def slow(self, now_s: float) -> dict[str, Any]:
        """Return stretches and events, times as seconds ago (below 0)."""
        stretches = [
            [max(-SHOWN_S, round(begin - now_s, 2)), round(end - now_s + 0.03, 2), validity]
            for begin, end, validity in self._stretches
        ]
        events = [event | {"t": round(event["t"] - now_s, 1)} for event in self._events]
        return {"stretches": stretches, "events": events}


_GRAVE = ("failed", "hung", "source_lost", "backend_failed", "refused", "fell_back")
