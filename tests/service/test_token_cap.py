"""The cap of tokens: when it begins, how far it goes, and that every spike keeps its one fate."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.bundle import DecoderBundle
from service.loop.decode_loop import DecodeLoop
from service.loop.token_cap import (
    GROWTH,
    LEAST_TOKENS,
    LIMIT_OF_HOP,
    N_CALM,
    N_NO_RETRY,
    N_OVER,
    N_WATCHED,
    TARGET_OF_HOP,
    CapChange,
    TokenCap,
)
from streams.spikes.tokenizer import evenly_over_units
from tests.service.beat_rig import HOP_S, HOP_US, STRANGER, BeatRig

LIMIT_S = LIMIT_OF_HOP * HOP_S
TARGET_S = TARGET_OF_HOP * HOP_S
KNOWN = [0, 1, 3, 4]
quick = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Load:
    """Beats of so many spikes, each of which costs the decoder so much."""

    def __init__(self, base_s: float, per_token_s: float) -> None:
        self.changes: list[CapChange] = []
        self.cap = TokenCap(HOP_S, self.changes.append)
        self.base_s, self.per_token_s = base_s, per_token_s
        self.taken_s: list[float] = []

    def run(self, n_spikes: int, n_beats: int, n_slots: int = 1) -> None:
        for _ in range(n_beats):
            self.cap.offer(n_spikes, None)
            n = n_spikes if self.cap.in_force is None else min(n_spikes, self.cap.in_force)
            self.taken_s.append(self.base_s + n * self.per_token_s)
            self.cap.note(n, self.taken_s[-1], n_slots)


@given(
    st.integers(200, 20_000),
    st.floats(1.05, 20.0),
    st.floats(0.0, 0.5),
)
def test_an_overload_is_brought_below_the_limit_and_stays_there(
    n_spikes: int, overload: float, base: float
) -> None:
    load = Load(base * TARGET_S, (overload * LIMIT_S - base * TARGET_S) / n_spikes)
    load.run(n_spikes, 6 * N_OVER)
    settled = load.taken_s[-1]
    if load.cap.in_force != LEAST_TOKENS:
        assert settled <= LIMIT_S
    load.run(n_spikes, 8 * N_CALM)
    if load.cap.in_force != LEAST_TOKENS:
        assert max(load.taken_s[-8 * N_CALM :]) <= LIMIT_S
    assert len(load.changes) <= 6 + 8


def test_the_third_slow_run_of_eight_begins_a_cap() -> None:
    cap = TokenCap(HOP_S)
    for taken_s in [2 * LIMIT_S, *[0.0] * N_WATCHED, 2 * LIMIT_S, 0.0, 2 * LIMIT_S, 0.0]:
        cap.note(1000, taken_s)
        assert cap.in_force is None
    cap.note(1000, 2 * LIMIT_S)
    assert cap.in_force == pytest.approx(1000 * TARGET_S / (2 * LIMIT_S), abs=1)


def test_decoders_behind_have_their_share_of_the_hop() -> None:
    alone, three = Load(0.0, TARGET_S / 1000), Load(0.0, TARGET_S / 1000)
    alone.run(1000, N_WATCHED)
    three.run(1000, N_WATCHED, n_slots=3)
    assert alone.cap.in_force is None
    assert three.cap.in_force is not None


def test_room_raises_the_cap_step_by_step_and_ends_it() -> None:
    load = Load(0.0, 2 * LIMIT_S / 1000)
    load.run(1000, N_OVER)
    began = load.cap.in_force
    assert began is not None
    load.per_token_s /= 10
    load.run(1000, 12 * N_CALM)
    assert load.cap.in_force is None
    first, *others = load.changes
    assert (first.why, first.before, first.cap) == ("slow", None, began)
    assert {change.why for change in others} == {"room"}
    caps = [change.cap for change in others[:-1]]
    assert caps == [int(GROWTH * (change.before or 0)) for change in others[:-1]]
    assert others[-1].cap is None


def test_few_tokens_are_never_capped() -> None:
    load = Load(3 * LIMIT_S, 0.0)
    load.run(LEAST_TOKENS, 10 * N_WATCHED)
    assert not load.changes


def test_a_cap_that_helps_nothing_ends_and_is_not_tried_again_soon() -> None:
    load = Load(2 * LIMIT_S, 0.0)
    load.run(10_000, 10 * N_OVER)
    assert [change.why for change in load.changes][-1] == "no_use"
    assert load.cap.in_force is None
    n = len(load.changes)
    load.run(10_000, N_NO_RETRY // 2)
    assert len(load.changes) == n


def test_a_burst_is_capped_before_it_is_run_and_forgotten_after_it() -> None:
    changes: list[CapChange] = []
    cap = TokenCap(HOP_S, changes.append)
    cap.offer(1000, 1000)
    assert cap.in_force is None
    cap.offer(1001, 1000)
    assert cap.in_force == 1000
    for _ in range(2 * N_CALM):
        cap.offer(100, 1000)
        cap.note(100, 1e-4)
    assert cap.in_force is None
    assert [change.why for change in changes] == ["burst", "room", "room"]
    assert changes[-1].cap is None


def test_what_was_run_in_time_fits() -> None:
    """What the backend took when it was opened is a guess; what it took since is none."""
    cap = TokenCap(HOP_S)
    for _ in range(40 * N_CALM):
        cap.offer(5000, 1000)
        cap.note(min(5000, cap.in_force or 5000), 1e-4)
    assert cap.in_force is None


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300), st.data())
def test_each_unit_keeps_its_share(rows: list[int], data: st.DataObject) -> None:
    cap = data.draw(st.integers(1, len(rows)))
    row = np.array(rows, np.int32)
    kept = evenly_over_units(row, cap) if cap < len(rows) else np.arange(len(rows))
    counts = Counter(row[kept].tolist())
    for unit, n in Counter(rows).items():
        assert abs(counts[unit] - n * cap / len(rows)) < 1.0


class SlowClock:
    """Stands still, but each reading moves it: a decoder that takes time without a wait."""

    def __init__(self, t_s: float) -> None:
        self.t_s, self.step_s = t_s, 0.0

    def now(self) -> float:
        self.t_s += self.step_s
        return self.t_s

    def sleep_until(self, t_s: float) -> None:
        self.t_s = max(self.t_s, t_s)


def capped(bundle: DecoderBundle, least_tokens: int, monkeypatch: pytest.MonkeyPatch) -> BeatRig:
    monkeypatch.setattr("service.loop.token_cap.LEAST_TOKENS", least_tokens)
    return BeatRig(bundle, shed=TokenCap(HOP_S))


@quick
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(-HOP_US, HOP_US), st.integers(0, 4)), max_size=30),
            st.sampled_from([1e-4, TARGET_S, 1.5 * LIMIT_S]),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([1, 2]),
)
def test_every_spike_has_one_fate_under_a_cap_that_moves(
    bundles: dict[int, DecoderBundle],
    story: list[tuple[list[tuple[int, int]], float, int]],
    overlap: int,
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rig = capped(bundles[overlap], 2, monkeypatch)
        loop, clock = rig.loop, SlowClock(rig.clock.t_s)
        loop._clock = loop._writer._clock = clock
        k, n_sent = 0, 0
        for spikes, taken_s, hops in story:
            k += hops
            rig.go_to(k)
            stamped = [(k * HOP_US + t_us, unit) for t_us, unit in spikes]
            rig.arrive(stamped)
            n_sent += len(stamped)
            clock.t_s, clock.step_s = max(clock.t_s, rig.clock.t_s), taken_s
            decode = rig.loop.step(k)
            clock.step_s = 0.0
            assert decode.token_cap is None or decode.tokens <= decode.token_cap
            assert rig.n_arrived() == n_sent
        rig.go_to(k + 20)
        decode = loop.step(k + 20)
        fates = loop.ring.fates.as_dict()
        assert loop.ring.n_pending == 0
        assert decode.spikes_in == sum(fates.values()) == n_sent


def feed(rig: BeatRig, k: int, n_of_unit: int) -> None:
    units = [*KNOWN, STRANGER]
    spikes = [((k - 1) * HOP_US + 1 + 7 * i + j, u) for i in range(n_of_unit) for j, u in
              enumerate(units)]  # fmt: skip
    rig.go_to(k)
    rig.arrive(spikes)


def slow_step(loop: DecodeLoop, k: int, taken_s: float) -> int:
    clock = SlowClock(loop.schedule.window_end_s(k))
    loop._clock = loop._writer._clock = clock
    clock.step_s = taken_s
    return loop.step(k).tokens


def test_a_beat_that_nears_its_time_holds_fewer_tokens_and_says_so(bundle: DecoderBundle) -> None:
    cap = TokenCap(HOP_S)
    rig = BeatRig(bundle, shed=cap)
    tokens = []
    for k in range(1, 2 * N_OVER):
        feed(rig, k, 100)
        tokens.append(slow_step(rig.loop, k, 2 * LIMIT_S / (1 if k <= N_OVER else 4)))
    whole, cap = 100 * len(KNOWN), cap.in_force
    assert tokens == [whole] * N_OVER + [cap] * (N_OVER - 1)
    rows = rig.windows[2 * N_OVER - 1].unit
    assert cap is not None
    assert all(abs(n - cap / len(KNOWN)) < 1 for n in Counter(rows.tolist()).values())
    rig.turn(2 * N_OVER + 5)
    assert rig.loop.ring.fates.overflow == (N_OVER - 1) * (whole - cap)
