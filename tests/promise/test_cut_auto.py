"""`cut = "auto"` against a settle time on the same streams: sooner, and nothing is decoded without.

Simulated time. What each rule did on each source is printed (`pytest -s`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from service.loop.intake.arrivals import Arrival
from service.loop.intake.ingest import Ingest
from service.loop.intake.schedule import Schedule
from service.loop.intake.source import Source
from streams.spikes.layouts.layout import LayoutOptions
from tests.promise.rigs import KEYS, WIRE_S
from tests.promise.test_promise import decoder
from tests.promise.world import T_BEGIN_S, Push, SentStream, SimulatedDaemon, World

HOP_S = 0.02
SETTLED_S = 12.0
"""From here on both know the source."""


@dataclass(frozen=True)
class Sender:
    """How a source sends.

    Attributes:
        block_s: length of its blocks.
        by_channel: a block holds one unit's spikes after the other's.
        delay_s: so long after a block's end it leaves.
        jitter_s: and by chance up to so much later, in order.
        behind_s: from `from_s` to `until_s` each spike is held up by chance for so long.
        from_s: see `behind_s`.
        until_s: see `behind_s`.
        rate_hz: spikes a second, of all units together.
        marks: each block ends with a keep-alive.
        silent_s: nothing fires between these.
    """

    block_s: float = 5e-3
    by_channel: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    behind_s: float = 0.0
    from_s: float = 0.0
    until_s: float = np.inf
    rate_hz: float = 500.0
    marks: bool = True
    silent_s: tuple[float, float] = (np.inf, np.inf)


def sent(sender: Sender, seconds: float) -> SentStream:
    rng = np.random.default_rng(4)
    pushes: list[Push] = []
    t_free_s = -np.inf
    start_s = T_BEGIN_S - 1.0 + 0.37 * sender.block_s
    for i in range(round((seconds + 1.0) / sender.block_s)):
        t_s = start_s + i * sender.block_s
        end_s, since_s = t_s + sender.block_s, t_s - T_BEGIN_S
        n = rng.poisson(sender.rate_hz * sender.block_s)
        if sender.silent_s[0] <= since_s < sender.silent_s[1]:
            n = 0
        stamps = np.sort(t_s + rng.random(n) * sender.block_s)
        unit = rng.integers(1, len(KEYS) + 1, n)
        if sender.by_channel:
            order = np.lexsort((stamps, unit))
            stamps, unit = stamps[order], unit[order]
        leaves_s = end_s + sender.delay_s + sender.jitter_s * rng.random() + WIRE_S
        t_free_s = max(t_free_s, leaves_s)  # TCP keeps the order
        held_up = sender.from_s <= since_s < sender.until_s and sender.behind_s > 0
        up_s = sender.behind_s * rng.random(n) if held_up else np.zeros(n)
        rows = np.column_stack((unit, np.ones(n, np.int64)))
        for late_s in np.unique(up_s):
            here = up_s == late_s
            pushes.append(Push(t_free_s + late_s, rows[here], stamps[here]))
        if sender.marks and not held_up:
            pushes.append(Push(t_free_s, np.array([[-1, -1]]), np.array([end_s])))
    pushes.sort(key=lambda push: push.t_s)
    return SentStream(("channel", "unit"), pushes)


@cache
def decoded(sender: Sender, cut: str, seconds: float) -> SimulatedDaemon:
    daemon = SimulatedDaemon(
        World([sent(sender, seconds)]),
        decoder(HOP_S),
        HOP_S,
        cut,  # type: ignore[arg-type]
    )
    daemon.run(T_BEGIN_S + seconds)
    return daemon


def waits_ms(
    daemon: SimulatedDaemon, from_s: float = SETTLED_S, until_s: float = np.inf
) -> np.ndarray:
    """From each window's end to its cut."""
    since_s = np.array([decode.t_window for decode in daemon.decodes]) - T_BEGIN_S
    cut_s = np.array([decode.t_cut - decode.t_window for decode in daemon.decodes])
    return 1e3 * cut_s[(since_s >= from_s) & (since_s < until_s)]


def disorders(daemon: SimulatedDaemon) -> list[float]:
    """What it told of the source's order, in milliseconds."""
    return [detail["disorder_ms"] for event, detail in daemon.events if event == "disorder"]


def late(daemon: SimulatedDaemon) -> int:
    return daemon.loop.ring.fates.late


def lacked_s(daemon: SimulatedDaemon, stream: SentStream) -> np.ndarray:
    """Stamps of spikes that came in the settle time, and after their bin was cut."""
    settle_s = 1e-3 * next(told["settle_ms"] for event, told in daemon.events if event == "settled")
    window_s = np.array([decode.t_window for decode in daemon.decodes])
    cut_s = np.array([decode.t_cut for decode in daemon.decodes])
    t_s = np.concatenate([push.stamps for push in stream.pushes if push.samples[0, 0] >= 0])
    came_s = np.concatenate(
        [np.full(len(push.stamps), push.t_s) for push in stream.pushes if push.samples[0, 0] >= 0]
    )
    known = (t_s > T_BEGIN_S + SETTLED_S) & (t_s <= window_s[-1])
    t_s, came_s = t_s[known], came_s[known]
    k = np.searchsorted(window_s, t_s)
    lacked = (came_s > cut_s[k] + 1e-6) & (came_s <= window_s[k] + settle_s - 1e-6)
    return t_s[lacked] - T_BEGIN_S


SOURCES: dict[str, tuple[Sender, float]] = {
    "in blocks of 5 ms": (Sender(), 0.2),
    "without marks": (Sender(marks=False, rate_hz=5000.0), 0.3),
    "by channel": (Sender(by_channel=True), 0.2),
    "by channel, without marks": (Sender(by_channel=True, marks=False), 1.01),
    "with 10 ms of jitter": (Sender(jitter_s=10e-3), 0.75),
    "60 ms old": (Sender(delay_s=60e-3), 1.0),
    "in blocks of 50 ms": (Sender(block_s=50e-3), 0.6),
}


@pytest.mark.parametrize("name", SOURCES)
def test_it_is_sooner_and_lacks_no_spike(name: str) -> None:
    sender, of_settled = SOURCES[name]
    auto, settled = (decoded(sender, cut, 30.0) for cut in ("auto", "settled"))
    waits = [np.quantile(waits_ms(daemon), (0.5, 0.99)) for daemon in (auto, settled)]
    assert late(auto) <= late(settled) == 0
    assert len(lacked_s(auto, sent(sender, 30.0))) == 0
    assert waits[0][0] <= of_settled * waits[1][0]
    assert waits[0][1] <= waits[1][1] + 0.7  # a bin that may lack spikes waits a little
    assert sum(decode.validity == "ok" for decode in auto.decodes[-500:]) >= 499


@pytest.mark.parametrize("marks", [True, False])
def test_a_source_that_turns_disorderly_is_waited_for_until_a_minute_has_been_in_order(
    marks: bool,
) -> None:
    sender = Sender(
        jitter_s=8e-3, behind_s=3e-3, from_s=30.0, until_s=40.0, marks=marks, rate_hz=2000.0
    )
    auto = decoded(sender, "auto", 112.0)
    before, meanwhile, after = (
        float(np.median(waits_ms(auto, *bounds)))
        for bounds in ((20.0, 30.0), (31.0, 40.0), (102.0, 112.0))
    )
    lacked = lacked_s(auto, sent(sender, 112.0))
    # Those of the first block that came out of order, by which it was found out.
    assert len(lacked) <= 20
    assert set(np.floor(lacked * 10).tolist()) <= {300.0}
    assert meanwhile > before + 2.0
    assert after < before + 1.0
    assert meanwhile > after + 2.0
    assert disorders(auto)[0] > 1.0
    assert disorders(auto)[-1] == 0.0


def test_a_silent_source_that_marks_its_blocks_is_decoded_at_once() -> None:
    daemon = decoded(Sender(silent_s=(15.0, 75.0)), "auto", 80.0)
    assert np.quantile(waits_ms(daemon, 16.0, 75.0), 0.99) < 1.0
    silent = [one for one in daemon.decodes if 16 < one.t_window - T_BEGIN_S < 75]
    assert {one.validity for one in silent} == {"ok"}
    assert {one.tokens for one in silent} == {0}


def test_a_silent_source_that_marks_nothing_is_waited_for_and_stale() -> None:
    daemon = decoded(Sender(silent_s=(15.0, 75.0), marks=False), "auto", 80.0)
    silent = [one for one in daemon.decodes if 16 < one.t_window - T_BEGIN_S < 74]
    assert {one.validity for one in silent} == {"stale"}
    assert [one.validity for one in daemon.decodes[-50:]] == ["ok"] * 50


def test_what_was_heard_at_the_opening_is_handed_over_before_the_first_beat() -> None:
    """Opening took .2 s more: neither what was heard before nor what came meanwhile is left."""
    world = World([sent(Sender(), 3.0)])
    source = Source(world.find, LayoutOptions(KEYS), world)
    heard_until_s = source.listen()
    schedule, inbox = Schedule(source.origin_s(), 20_000), deque[Arrival]()
    ingest = Ingest(source, world, schedule, inbox, lambda *_: None, lambda _: None, by_loop=True)
    world.sleep_until(world.now() + 0.2)
    ingest.wait_until_caught_up(lambda: None)
    stamps_s = schedule.zero_s + 1e-6 * np.concatenate([one.batch.t_us for one in inbox])
    assert stamps_s.min() < heard_until_s[0] + 0.01
    assert stamps_s.max() > world.now() - 0.02
