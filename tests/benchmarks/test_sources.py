"""Disorderly sources: their pushes, and the judgement on what was decoded of them."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import numpy as np
import pytest

from benchmarks.sources.__main__ import PHASES, bench_sources, print_rows, rows_of
from benchmarks.sources.kinds import BLOCK_S, KINDS, Kind, Push, pushes
from benchmarks.sources.told import Told, lacking
from service.bench.loop import Settings
from service.errors import ConfigError

N_UNITS, RATE_HZ, T_BEGIN_S, SECONDS = 20, 50.0, 100.0, 3.0
WIRE_MOST_S = 1e-9


def sent(kind: Kind, *, is_changed: bool = True) -> list[Push]:
    """The first seconds' pushes."""
    endless = pushes(kind, N_UNITS, RATE_HZ, T_BEGIN_S, lambda: is_changed)
    return list(takewhile(lambda push: push.t_s < T_BEGIN_S + SECONDS, endless))


def behind_s(found: list[Push]) -> np.ndarray:
    """By how much each spike falls behind one that left before it."""
    stamps = np.concatenate([push.stamps for push in found])
    behind: np.ndarray = np.maximum.accumulate(stamps) - stamps
    return behind


@pytest.mark.parametrize("name", KINDS)
def test_pushes_leave_in_order_and_no_spike_before_it_fired(name: str) -> None:
    found = sent(KINDS[name])
    leaves_s = [push.t_s for push in found]
    assert leaves_s == sorted(leaves_s)
    assert all(push.t_s >= push.stamps.max(initial=0.0) for push in found)
    marks_s = [push.complete_until_s for push in found if push.complete_until_s is not None]
    assert marks_s == sorted(set(marks_s))
    # A keep-alive says that no spike of before it is still to come.
    for i, push in enumerate(found):
        if push.complete_until_s is not None:
            later = [one.stamps.min(initial=np.inf) for one in found[i + 1 :]]
            assert min(later, default=np.inf) > push.complete_until_s


@pytest.mark.parametrize(
    ("name", "most_s"),
    [("blocks", 0.0), ("jitter", 0.0), ("old", 0.0), ("by-channel", 5e-3), ("disorderly", 8e-3)],
)
def test_each_source_is_as_disorderly_as_it_says(name: str, most_s: float) -> None:
    worst_s = behind_s(sent(KINDS[name])).max()
    assert 0.5 * most_s <= worst_s <= most_s
    assert np.all(behind_s(sent(KINDS["disorderly"], is_changed=False)) == 0.0)


def test_delays_and_silence_are_as_said() -> None:
    assert sum(len(push.stamps) for push in sent(KINDS["silent"])) == 0
    assert len(sent(KINDS["silent"])) == pytest.approx(SECONDS / BLOCK_S, abs=2)
    assert not sent(KINDS["silent-unmarked"])[0].stamps.size
    old = [push for push in sent(KINDS["old"]) if len(push.stamps)]
    assert all(push.t_s - push.stamps.min() >= 60e-3 for push in old)
    late_s = [push.t_s - push.complete_until_s for push in sent(KINDS["jitter"])
              if push.complete_until_s is not None]  # fmt: skip
    assert 5e-3 < max(late_s) <= 10e-3 + WIRE_MOST_S


def told(tokens: int, validity: str = "ok") -> Told:
    """A daemon with one decode, of the window that ends at 10 s, and a settle time of 8 ms."""
    found = Told()
    found.take("heartbeat", {"t_sent": 5.0, "settle_ms": 8.0, "settling": False})
    found.take("decode", {"t_window": 10.0, "tokens": tokens, "validity": validity})
    return found


@pytest.mark.parametrize(
    ("tokens", "validity", "lacks"),
    [(3, "ok", 0), (2, "ok", 1), (4, "ok", 0), (1, "ok", 2), (0, "stale", 0)],
)
def test_a_decode_lacks_what_was_here_before_the_settle_time_was_over(
    tokens: int, validity: str, lacks: int
) -> None:
    """Three of its bin were; one came 9 ms after its end, two are of other bins."""
    stamps = np.array([9.97, 9.985, 9.99, 9.995, 9.999, 10.001])
    here_s = np.array([9.98, 9.99, 10.006, 9.998, 10.009, 10.003])
    found = told(tokens, validity)
    lacked: list[Any] = lacking(found, found.decodes, stamps, here_s, 0.02)
    assert sum(n for _, n in lacked) == lacks


def told_of_300_beats(cut_by: str) -> Told:
    """Two tokens a bin; at 102.05 s the source is told to be disorderly."""
    found = Told()
    for k in range(300):
        t_s = 100 + 0.02 * k
        decode = {"t_window": t_s, "tokens": 2, "validity": "ok", "reason": "", "spikes_late": 0}
        found.take("decode", decode | {"t_sent": t_s + (1e-3 if cut_by == "watermark" else 8e-3)})
        found.take("timing", {"t_window": t_s, "cut_by": cut_by})
        if k % 50 == 0:
            beat = {"t_sent": t_s, "settle_ms": 8.0, "disorder_ms": 3.0 * (k >= 100)}
            found.take("heartbeat", beat)
    found.take("event", {"t_sent": 102.05, "event": "disorder"})
    return found


@pytest.mark.parametrize(("name", "wanted"), [("disorderly", [0, 0, 0]), ("by-channel", [1])])
def test_what_lacks_before_disorder_is_found_out_is_told_apart(
    name: str, wanted: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A spike of beat 101 came in time, and is not in it; a source may turn disorderly once."""
    spikes = [(np.array([-0.01, -5e-3]) + 100 + 0.02 * k, 100 + 0.02 * k) for k in range(300)]
    spikes.append((np.array([102.016]), 102.021))
    told = {"auto": told_of_300_beats("watermark"), "settled": told_of_300_beats("settled")}
    rows = rows_of(name, [100.0, 102.0, 104.0, 106.0], told, spikes, 0.02)
    assert [row["lacking"] for row in rows] == wanted
    assert sum(row["lacking_until_found"] for row in rows) == 1 - sum(wanted)
    assert [row["phase"] for row in rows] == (list(PHASES) if len(wanted) == 3 else [""])
    assert rows[0]["cut_shares"] == {"watermark": 1.0}
    assert rows[0]["sent_ms"]["auto"] == pytest.approx([1.0, 1.0])
    assert rows[0]["sent_ms"]["settled"] == pytest.approx([8.0, 8.0])
    print_rows(rows)
    assert KINDS[name].told in capsys.readouterr().out


def test_what_a_daemon_had_late_though_it_waited_is_told_apart() -> None:
    """It is not the rule's doing that a bin that waited for the settle time lacks a spike."""
    spikes = [(np.array([-0.01, -5e-3]) + 100 + 0.02 * k, 100 + 0.02 * k) for k in range(300)]
    spikes.append((np.array([102.016]), 102.021))
    told = {cut: told_of_300_beats("settled") for cut in ("auto", "settled")}
    (row,) = rows_of("by-channel", [100.0, 102.0, 104.0, 106.0], told, spikes, 0.02)
    assert (row["lacking"], row["overdue"]) == (0, {"auto": 1, "settled": 1})


def test_a_source_that_is_not_there_is_refused() -> None:
    settings = Settings(n_units=1, rate_hz=1.0, hop_s=0.02, seconds=1.0, block_s=5e-3)
    with pytest.raises(ConfigError, match="by-channel"):
        bench_sources(["by_channel"], settings, together=False, as_json=True)
