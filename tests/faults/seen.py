"""What a client saw of a fault: `make faults` prints it for the table of docs/faults.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from service.config import BeatConfig
from tests.system.conftest import HOP_S
from tests.system.running import Daemon, Heard, clock

STOPPING = "stopping"
"""The last decode of a daemon that was asked to end: no fault."""
SETTLE_MOST_S = 1e-3 * BeatConfig().settle_most_ms
HOPS = 2
"""More of them overdue, and a decode is not current (DEFINITIONS, "Fates of a beat")."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault as it was seen.

    Attributes:
        fault: what it was.
        safe_s: from its beginning, or its end where nothing is sent meanwhile, to the first decode
            that is not `ok`; None where all were.
        n_decodes: heard from its beginning on.
        n_not_current: those that were `ok`, though overdue, when they left.
        back_s: from the end of its cause, or else the first decode that is not `ok`, to `ok` again.
    """

    fault: str
    safe_s: float | None
    n_decodes: int
    n_not_current: int
    back_s: float | None


class Seen:
    """The faults of one test.

    Args:
        test: its name.
    """

    def __init__(self, test: str) -> None:
        self._test = test
        self._noted: list[tuple[str, Daemon, float]] = []
        self._over: dict[int, float] = {}
        self._silent: set[int] = set()

    def fault(self, daemon: Daemon, what: str = "", t_s: float | None = None) -> float:
        """Note that a fault begins; return when.

        Args:
            daemon: whose decodes tell.
            what: which of the test's faults; "" if there is but one.
            t_s: when it began; by default now.
        """
        t_s = clock.now() if t_s is None else t_s
        self._noted.append((what, daemon, t_s))
        return t_s

    def over(self, *, was_silent: bool = False) -> float:
        """Note that its cause is gone; return when.

        Args:
            was_silent: the daemon could send nothing meanwhile.
        """
        self._over[len(self._noted) - 1] = t_s = clock.now()
        if was_silent:
            self._silent.add(len(self._noted) - 1)
        return t_s

    def rows(self) -> list[Row]:
        """What was seen of each, once the test is over."""
        ends = [t_s for _, _, t_s in self._noted[1:]] + [float("inf")]
        return [self._row(i, t_end_s) for i, t_end_s in enumerate(ends) if i < len(self._noted)]

    def _row(self, i: int, t_end_s: float) -> Row:
        what, daemon, t_fault_s = self._noted[i]
        heard = [
            d
            for d in daemon.heard.decodes
            if t_fault_s < d["t_sent"] < t_end_s and d["reason"] != STOPPING
        ]
        t_over_s = self._over.get(i)
        t_bad_s = _first(d["t_sent"] for d in heard if d["validity"] != "ok")
        begun_s = t_over_s if i in self._silent and t_over_s else t_fault_s
        t_ok_s = None
        if t_bad_s is not None:
            after_s = max(t_bad_s, t_over_s or t_bad_s)
            t_ok_s = _first(
                d["t_sent"] for d in heard if d["validity"] == "ok" and d["t_sent"] > after_s
            )
        is_current = _currency(daemon.heard)
        return Row(
            f"{self._test}{': ' if what else ''}{what}",
            None if t_bad_s is None else t_bad_s - begun_s,
            len(heard),
            sum(d["validity"] == "ok" and not is_current(d) for d in heard),
            None if t_ok_s is None else t_ok_s - (t_over_s or t_bad_s or t_ok_s),
        )


def _currency(heard: Heard) -> Callable[[dict[str, Any]], bool]:
    """Return what tells whether a decode was current when it left.

    It was due once the settle time was over. That may be longer for less than a second, which no
    heartbeat tells; the beat's `t_due` does, and is believed up to the longest that is configured.
    """
    told_s = 1e-3 * max((one["settle_ms"] for one in heard.heartbeats), default=0.0)
    due_s = {(one["run_id"], one["beat"]): one["t_due"] for one in heard.timings}

    def is_current(decode: dict[str, Any]) -> bool:
        t_window = decode["t_window"]
        t_due = due_s.get((decode["run_id"], decode["beat"]), t_window)
        t_due = max(t_window + told_s, min(t_due, t_window + SETTLE_MOST_S))
        return bool(decode["t_sent"] <= t_due + HOPS * HOP_S)

    return is_current


def _first(times_s: Iterator[float]) -> float | None:
    return next(times_s, None)


def table(rows: Iterable[Row]) -> str:
    """All rows as a table, those of the same fault in one: median and most."""
    by_fault: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_fault[row.fault].append(row)
    lines = [
        "| fault | times | not `ok` after, s | `ok` but not current | of decodes | `ok` again, s |",
        "|---|---|---|---|---|---|",
    ]
    for fault, those in by_fault.items():
        cells: list[Any] = [
            fault, len(those), _span([row.safe_s for row in those]),
            sum(row.n_not_current for row in those), sum(row.n_decodes for row in those),
            _span([row.back_s for row in those]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _span(times_s: list[float | None]) -> str:
    found = sorted(t_s for t_s in times_s if t_s is not None)
    if not found:
        return "never"
    told = f"{found[len(found) // 2]:.2f}"
    if len(found) > 1:
        told += f", at most {found[-1]:.2f}"
    return told if len(found) == len(times_s) else f"{told} ({len(found)} of {len(times_s)})"
