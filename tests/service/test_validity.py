"""Validity against an oracle that writes its rules down once more."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.loop.validity import REASONS, ValidityInputs, ValidityJudge
from streams.messages import Validity

CONTEXT_S, STALE_S, KEEP_ALIVE_S, HOP_S = 0.5, 0.3, 0.05, 0.02
WELL = ValidityInputs(
    t_s=100.0,
    t_due=100.0,
    newest_s=99.99,
    delay_s=0.0,
    keeps_alive=False,
    since_reset_s=10.0,
    spikes_in=1000,
    unknown=0,
    finite=True,
    backend_ok=True,
    source_fault="",
    complete=True,
    paused=False,
)
WRONGS: dict[str, dict[str, Any]] = {
    "context_short": {"since_reset_s": 0.49},
    "no_spikes": {"newest_s": 99.69},
    "paused": {"paused": True},
    "non_finite": {"finite": False},
    "backend_error": {"backend_ok": False},
    "clock_jump": {"source_fault": "clock_jump"},
    "incomplete": {"complete": False},
    "overdue": {"t_due": 99.95},
}


def judged(**changes: Any) -> str:
    judge = ValidityJudge(CONTEXT_S, STALE_S, KEEP_ALIVE_S, HOP_S)
    return judge.judge(dataclasses.replace(WELL, **changes))


def test_all_well_is_ok() -> None:
    assert judged() == ""
    assert REASONS[""] is Validity.OK


def test_the_order_of_validity_is_that_of_the_definitions() -> None:
    assert Validity.FAULT > Validity.PAUSED > Validity.STALE > Validity.WARMUP > Validity.OK
    assert [int(validity) for validity in Validity] == [0, 1, 2, 3, 4]


def test_every_validity_has_a_reason_and_only_ok_has_none() -> None:
    assert set(REASONS.values()) == set(Validity)
    assert [reason for reason, validity in REASONS.items() if validity is Validity.OK] == [""]


def test_the_docs_list_the_reasons() -> None:
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
    section = text.partition("### Validity\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `?(\w*|\"\")`? \| `(\w+)` \|", section, flags=re.M)
    told = {reason.strip('"'): validity for reason, validity in rows}
    assert told == {reason: validity.name.lower() for reason, validity in REASONS.items()}


@pytest.mark.parametrize("reason", WRONGS)
def test_each_wrong_has_its_reason(reason: str) -> None:
    assert judged(**WRONGS[reason]) == reason


@given(st.sets(st.sampled_from(sorted(WRONGS))))
def test_the_worst_of_several_wins(wrongs: set[str]) -> None:
    changes = {key: value for wrong in wrongs for key, value in WRONGS[wrong].items()}
    reason = judged(**changes)
    assert reason in (wrongs or {""})
    assert REASONS[reason] == max((REASONS[wrong] for wrong in wrongs), default=Validity.OK)


@given(
    st.one_of(st.none(), st.floats(90.0, 101.0)),
    st.booleans(),
    st.floats(0.0, 2.0),
)
def test_silence_and_warm_up_follow_their_limits(
    newest_s: float | None, keeps_alive: bool, since_reset_s: float
) -> None:
    reason = judged(newest_s=newest_s, keeps_alive=keeps_alive, since_reset_s=since_reset_s)
    limit_s = 3 * KEEP_ALIVE_S if keeps_alive else STALE_S
    if newest_s is None:
        expected = "no_spikes"
    elif 100.0 - newest_s > limit_s:
        expected = "keep_alives_missed" if keeps_alive else "no_spikes"
    else:
        expected = "context_short" if since_reset_s < CONTEXT_S else ""
    assert reason == expected


COUNTS = st.lists(st.tuples(st.integers(10, 40), st.integers(0, 14)), min_size=1, max_size=40)


@given(COUNTS, st.sampled_from([0.05, 0.25, 0.3]))
def test_unknown_units_are_judged_over_the_last_second(
    counts: list[tuple[int, int]], hop_s: float
) -> None:
    judge = ValidityJudge(CONTEXT_S, STALE_S, KEEP_ALIVE_S, HOP_S)
    history: list[tuple[float, int, int]] = []
    known_sum = unknown_sum = 0
    for i, (n_known, n_unknown) in enumerate(counts):
        t_s = 100.0 + i * hop_s
        known_sum, unknown_sum = known_sum + n_known, unknown_sum + n_unknown
        history.append((t_s, known_sum + unknown_sum, unknown_sum))
        before = [h for h in history if h[0] <= t_s - 1.0] or history[:1]
        spikes, unknown = history[-1][1] - before[-1][1], history[-1][2] - before[-1][2]
        evidence = dataclasses.replace(
            WELL, t_s=t_s, t_due=t_s, newest_s=t_s, spikes_in=history[-1][1], unknown=unknown_sum
        )
        wrong = unknown > 0.2 * spikes and unknown >= 10
        assert judge.judge(evidence) == ("unknown_units" if wrong else "")


@pytest.mark.parametrize(
    ("spikes", "unknown", "reason"),
    [(100, 20, ""), (100, 21, "unknown_units"), (20, 9, ""), (20, 10, "unknown_units")],
)
def test_more_than_a_fifth_is_too_many(spikes: int, unknown: int, reason: str) -> None:
    judge = ValidityJudge(CONTEXT_S, STALE_S, KEEP_ALIVE_S, HOP_S)
    assert judge.judge(WELL) == ""
    later = {
        "t_s": 100.5,
        "t_due": 100.5,
        "newest_s": 100.5,
        "spikes_in": 1000 + spikes,
        "unknown": unknown,
    }
    assert judge.judge(dataclasses.replace(WELL, **later)) == reason


def test_unknown_units_that_stop_are_forgiven_after_a_second() -> None:
    judge = ValidityJudge(CONTEXT_S, STALE_S, KEEP_ALIVE_S, HOP_S)
    reasons = []
    for i in range(120):
        evidence = dataclasses.replace(
            WELL,
            t_s=100.0 + 0.02 * i,
            t_due=100.0 + 0.02 * i,
            newest_s=100.0 + 0.02 * i,
            spikes_in=10 * i,
            unknown=5 * min(i, 50),
        )
        reasons.append(judge.judge(evidence))
    assert "unknown_units" in reasons[:50]
    assert reasons[110:] == [""] * 10
