"""The queue of commands: who waits, and who is refused."""

from __future__ import annotations

import pytest

from service.loop.commands import CommandQueue, LoopCommand, RefusedError


def test_a_command_that_must_wait_is_tried_again() -> None:
    queue, tries = CommandQueue(), list[str]()
    command = LoopCommand("promote")
    queue.put(command)
    for error in (None, "no decoder is in shadow"):
        assert not command.done.is_set()
        queue.carry_out(lambda asked, error=error: tries.append(asked.change) or error)
    assert tries == ["promote", "promote"]
    assert command.done.is_set()
    assert command.error == "no decoder is in shadow"


def test_a_loop_that_does_not_answer_is_said_to_be_so() -> None:
    with pytest.raises(RefusedError, match="did not pause within 0 s"):
        CommandQueue().ask(LoopCommand("pause"), within_s=0.0)


def test_nobody_waits_for_a_loop_that_has_ended() -> None:
    queue, waiting = CommandQueue(), LoopCommand("promote")
    queue.put(waiting)
    queue.close()
    assert waiting.done.is_set()
    with pytest.raises(RefusedError, match="stopping"):
        queue.ask(LoopCommand("pause"))
