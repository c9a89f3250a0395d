"""A source that is not heard of is lost, unless it is the daemon that did not listen."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from service.loop.intake.ingest import PULL_WAIT_S, SILENT_S, Ingest
from service.loop.intake.schedule import Schedule
from service.loop.intake.source import Source
from streams.spikes.layouts.layout import LayoutOptions
from tests.promise.rigs import KEYS
from tests.promise.world import T_BEGIN_S, Push, SentStream, World

SPIKE = np.array([[1, 1]])


def listening(*pushed_s: float) -> tuple[World, Ingest, list[str]]:
    """An ingest whose stream sends a spike at each of these times, counted from its opening."""
    pushes = [Push(T_BEGIN_S + t_s, SPIKE, np.array([T_BEGIN_S + t_s])) for t_s in pushed_s]
    world = World([SentStream(("channel", "unit"), pushes)])
    source = Source(world.find, LayoutOptions(KEYS), world)
    told: list[str] = []

    def report(event: str, _: dict[str, Any]) -> None:
        told.append(event)

    def failed(error: Exception) -> None:
        raise error

    schedule = Schedule(source.origin_s(), 20_000)
    return world, Ingest(source, world, schedule, deque(), report, failed), told


def pull_for(ingest: Ingest, seconds: float) -> None:
    for _ in range(round(seconds / PULL_WAIT_S)):
        if not ingest.is_lost:
            ingest.pull_once(PULL_WAIT_S)


def test_one_that_sends_nothing_and_does_not_answer_is_lost() -> None:
    _, ingest, told = listening(0.5)
    pull_for(ingest, SILENT_S)
    assert not ingest.is_lost
    pull_for(ingest, 1.0)
    assert told == ["source_lost"]


def test_one_is_not_lost_because_the_daemon_stood_still() -> None:
    """What waited in the socket may be there only after the first pull."""
    world, ingest, told = listening(0.5, 62.0)
    pull_for(ingest, 1.0)
    world.t_s += 60.0
    ingest.pull_once(0.0)
    pull_for(ingest, SILENT_S)
    assert not told
    pull_for(ingest, SILENT_S)
    assert told == ["source_lost"]
