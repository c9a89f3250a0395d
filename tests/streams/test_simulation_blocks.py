"""The simulated task obeys the blocks that a calibration announces."""

from __future__ import annotations

from typing import Any

import pytest

from streams.simulation.control import Block, block_of
from streams.simulation.subject import ReachTask, TaskBehavior, targets_of
from streams.simulation.user import User


def mark(text: str) -> dict[str, Any]:
    return {"event": "mark", "detail": {"text": text}}


@pytest.mark.parametrize(
    ("event", "block"),
    [
        (mark("block open-loop"), Block("open-loop")),
        (mark("block rest"), Block("rest")),
        (mark("block closed-loop assist=0.50"), Block("closed-loop", 0.5)),
        (mark("block closed-loop assist=7"), Block("closed-loop", 1.0)),
        (mark("block 2"), None),
        (mark("coffee"), None),
        ({"event": "paused", "detail": {}}, None),
    ],
)
def test_blocks_are_read_from_marks_and_nothing_else_is(
    event: dict[str, Any], block: Block | None
) -> None:
    assert block_of(event) == block


def test_another_control_takes_over_where_the_cursor_is() -> None:
    behavior = TaskBehavior(User(1, "decoder"), ReachTask(targets_of("centre-out", 1)), "decoder")
    for _ in range(200):
        behavior.step((5.0, 0.0))
    there = behavior.cursor
    assert there[0] > 4.0
    behavior.switch(User(1, "hand"), "hand")
    assert behavior.step((5.0, 0.0)).cursor == pytest.approx(there, abs=0.2)
    acquired = behavior.task.n_acquired
    for _ in range(2000):
        behavior.step((5.0, 0.0))
    assert behavior.task.n_acquired > acquired + 2
