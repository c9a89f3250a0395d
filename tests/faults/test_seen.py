"""What the table of faults counts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from tests.faults.seen import Seen, table
from tests.system.conftest import HOP_S
from tests.system.running import Daemon, Heard, clock

SETTLE_MS = 20.0


def decode(t_sent: float, validity: str, waited_s: float = 0.0) -> dict[str, Any]:
    t_window, reason = t_sent - 1e-3 * SETTLE_MS - waited_s, "" if validity == "ok" else "any"
    which = {"run_id": "a", "beat": round(t_window / HOP_S)}
    return which | {"t_sent": t_sent, "t_window": t_window, "validity": validity, "reason": reason}


def daemon_that_said(*decodes: dict[str, Any], timings: Sequence[dict[str, Any]] = ()) -> Daemon:
    heard = Heard([*decodes], [{"settle_ms": SETTLE_MS}], timings=[*timings])
    return cast(Daemon, SimpleNamespace(heard=heard))


def test_times_and_what_was_ok_by_wrong() -> None:
    t_s = clock.now()
    seen = Seen("a fault")
    seen.fault(
        daemon_that_said(
            decode(t_s - 0.1, "fault"),  # before it
            decode(t_s + 0.1, "ok", 1.9 * HOP_S),
            decode(t_s + 0.2, "ok", 2.1 * HOP_S),
            decode(t_s + 0.5, "stale", 9.0),
            decode(t_s + 0.9, "ok"),
        ),
        t_s=t_s,
    )
    (row,) = seen.rows()
    assert (row.n_decodes, row.n_not_current) == (4, 1)
    assert (round(row.safe_s or 0, 6), round(row.back_s or 0, 6)) == (0.5, 0.4)
    assert "| a fault | 1 | 0.50 | 1 | 4 | 0.40 |" in table([row])


def test_what_waited_for_a_settle_time_that_no_heartbeat_told_is_current() -> None:
    t_s = clock.now()
    waited, forever = decode(t_s + 0.1, "ok", 0.3), decode(t_s + 0.2, "ok", 3.0)
    timings = [one | {"t_due": one["t_sent"] - HOP_S} for one in (waited, forever)]
    seen = Seen("a slow link")
    seen.fault(daemon_that_said(waited, forever, timings=timings), t_s=t_s)
    assert [row.n_not_current for row in seen.rows()] == [1]


def test_where_nothing_is_sent_meanwhile_times_count_from_its_end() -> None:
    seen = Seen("a stop")
    later_s = clock.now() + 1e3
    daemon = daemon_that_said(decode(later_s + 1.0, "stale"), decode(later_s + 3.0, "ok"))
    seen.fault(daemon, "of a second")
    t_over_s = seen.over(was_silent=True)
    (row,) = seen.rows()
    assert row.fault == "a stop: of a second"
    assert row.safe_s == later_s + 1.0 - t_over_s
    assert row.back_s == later_s + 3.0 - t_over_s


def test_nothing_happened() -> None:
    seen = Seen("nothing")
    t_s = clock.now()
    for _ in range(2):
        stopped = decode(t_s + 2.0, "stale") | {"reason": "stopping"}
        seen.fault(daemon_that_said(decode(t_s + 1.0, "ok"), stopped), t_s=t_s)
    assert "| nothing | 2 | never | 0 |" in table(seen.rows())
