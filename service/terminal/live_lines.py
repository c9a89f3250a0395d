"""The lines that `watch` draws anew: validity, values, age, rate, misses and events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from service.telemetry.percentiles import percentiles
from service.words import (
    COLOURS,
    event_in_words,
    fates_in_words,
    flags_in_words,
    reason_and_remedy,
    reason_in_words,
    seconds_in_words,
    silence_of,
    validity_in_words,
)

OVER_S = 2.0
SILENT_AFTER_S = 0.5
N_EVENTS = 4
BAR_CELLS, BARS_AT_MOST = 10, 3


class LiveLines:
    """The daemon's newest messages, drawn as a few lines.

    Args:
        endpoint: where decodes come from, for the title.
        t_start_s: now, on this machine's clock.
        same_clock: the daemon runs on this machine, so that a decode's age is known.
    """

    def __init__(self, endpoint: str, t_start_s: float, *, same_clock: bool) -> None:
        self.n_decodes = 0
        self._endpoint, self._same_clock = endpoint, same_clock
        self._t_heard_s = t_start_s
        self._recent: deque[tuple[float, dict[str, Any]]] = deque()
        self._first: dict[str, Any] | None = None
        self._n_late = self._n_lost = 0
        self._largest: dict[str, float] = {}
        self._heartbeat: dict[str, Any] = {}
        self._events: deque[tuple[float, str]] = deque(maxlen=N_EVENTS)

    def take(self, topic: str, message: dict[str, Any], now_s: float) -> None:
        """Take a message in, as it is received."""
        if topic == "decode":
            self._take_decode(message, now_s)
        elif topic == "heartbeat":
            self._heartbeat = message
        elif topic == "event":
            name, text = message["event"], event_in_words(message["event"], message["detail"])
            told = f"{name.replace('_', ' ')}{f': {text}' if text else ''}"
            self._events.append((now_s, told))

    def drawn(self, now_s: float) -> Table:
        """Draw the lines.

        Args:
            now_s: on this machine's clock.
        """
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim", no_wrap=True, min_width=9)
        table.add_column(overflow="fold")
        for name, text in self._rows(now_s):
            table.add_row(name, text)
        return table

    def _take_decode(self, decode: dict[str, Any], now_s: float) -> None:
        self.n_decodes += 1
        self._t_heard_s = now_s
        if self._first is None or decode["run_id"] != self._first["run_id"]:
            # Another run of the daemon counts from 1 again.
            self._first, self._n_late, self._n_lost = decode, 0, 0
            self._recent.clear()
        if self._recent:
            self._n_lost += max(0, decode["seq"] - self._recent[-1][1]["seq"] - 1)
        self._n_late += decode["late"]
        self._recent.append((now_s, decode))
        while self._recent[0][0] < now_s - OVER_S:
            self._recent.popleft()
        for name, value in decode["value"].items():
            sizes = [abs(v) for v in value or () if v is not None]
            self._largest[name] = max([self._largest.get(name, 0.0), *sizes])

    def _rows(self, now_s: float) -> Iterator[tuple[str, str]]:
        if not self._recent:
            waited = seconds_in_words(now_s - self._t_heard_s)
            yield "now", f"waiting for decodes from {escape(self._endpoint)} for {waited}"
            return
        last = self._recent[-1][1]
        yield from self._state(last, now_s)
        if flags := self._heartbeat.get("flags"):
            yield "beware", f"[yellow]{escape(flags_in_words(flags))}[/]"
        for name, value in last["value"].items():
            most = max(self._largest[name], 1e-9)
            yield from self._values(name, value, last["units"][name], most)
        yield "age", self._age()
        yield "rate", self._rate()
        yield "missed", self._missed(last)
        yield "spikes", self._spikes(last)
        yield "decoder", f"{escape(last['decoder_id'])} by {escape(last['backend'])}"
        for t_s, told in reversed(self._events):
            yield f"{seconds_in_words(now_s - t_s)} ago", f"[yellow]{escape(told)}[/]"

    def _state(self, last: Mapping[str, Any], now_s: float) -> Iterator[tuple[str, str]]:
        silent_s = now_s - self._t_heard_s
        validity, reason = last["validity"], last["reason"]
        if silent_s > SILENT_AFTER_S:
            yield "now", f"[bold red]no decode for {seconds_in_words(silent_s)}[/]"
            yield "", "is the daemon still running? `spikeloop status` asks it"
            told = reason_in_words(reason, silence_of(last)) if reason else ""
            yield "before", escape(told or validity_in_words(validity))
            return
        yield (
            "now",
            f"[bold {COLOURS.get(validity, 'red')}]{escape(validity_in_words(validity))}[/]",
        )
        # A line each, blank where there is nothing to say, so that what is below keeps its place.
        for told in reason_and_remedy(reason, silence_of(last)) if reason else ("", ""):
            yield "", escape(told)

    def _values(
        self, name: str, value: list[float | None] | None, unit: str, most: float
    ) -> Iterator[tuple[str, str]]:
        """A line for each dimension with its bar; all in one where there are many."""
        if value is None:
            yield escape(name), "none"
        elif len(value) > BARS_AT_MOST:
            yield escape(name), "  ".join([*map(_number, value), escape(unit)])
        else:
            for i, one in enumerate(value):
                yield "" if i else escape(name), f"{_number(one)} {_bar(one, most)} {escape(unit)}"

    def _age(self) -> str:
        sent_ms = percentiles([1e3 * (d["t_sent"] - d["t_window"]) for _, d in self._recent])
        worst = f"99 of 100 at most {sent_ms['p99']:.1f}"
        if not self._same_clock:
            return f"when sent {sent_ms['p50']:.1f} ms, {worst} (the daemon is on another machine)"
        # Drawing delays some receptions, so their worst would tell of this program.
        came_ms = percentiles([1e3 * (t_s - d["t_window"]) for t_s, d in self._recent])
        return f"{came_ms['p50']:.1f} ms when it comes; when sent {sent_ms['p50']:.1f}, {worst}"

    def _rate(self) -> str:
        t_first_s, t_last_s = self._recent[0][0], self._recent[-1][0]
        if t_last_s <= t_first_s:
            return ""
        per_s = (len(self._recent) - 1) / (t_last_s - t_first_s)
        hop_ms = self._heartbeat.get("hop_ms")
        wanted = f" of {1e3 / hop_ms:.0f}" if hop_ms else ""
        return f"{per_s:.1f}{wanted} decodes a second"

    def _missed(self, last: Mapping[str, Any]) -> str:
        assert self._first is not None
        skipped = last["beats_skipped"] - self._first["beats_skipped"]
        told = f"{self._n_late:,} late, {skipped:,} skipped, {self._n_lost:,} lost on the way"
        return f"[yellow]{told}[/]" if self._n_late or skipped or self._n_lost else told

    def _spikes(self, last: Mapping[str, Any]) -> str:
        (t_first_s, first), (t_last_s, _) = self._recent[0], self._recent[-1]
        if t_last_s <= t_first_s:
            return ""
        per_s = (last["spikes_in"] - first["spikes_in"]) / (t_last_s - t_first_s)
        shares = self._heartbeat.get("shares", {})
        lost = fates_in_words(shares)
        beside = f"[yellow], {lost}[/]" if lost else ""
        return f"{per_s:,.0f} a second, {last['tokens']:,} in this decode{beside}"


def _number(value: float | None) -> str:
    return f"{'none':>8}" if value is None else f"{value:+8.2f}"


def _bar(value: float | None, most: float) -> str:
    """Draw a bar from the middle, to the left where the value is negative."""
    n = 0 if value is None else round(BAR_CELLS * min(1.0, abs(value) / most))
    empty, full = " " * (BAR_CELLS - n), "━" * n
    left, right = (f"{empty}{full}", " " * BAR_CELLS), (" " * BAR_CELLS, f"{full}{empty}")
    side = left if value is not None and value < 0.0 else right
    return f"[cyan]{side[0]}[/][dim]│[/][cyan]{side[1]}[/]"
