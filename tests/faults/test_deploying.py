"""The thread that deploys meets what nobody expects, and the loop does not answer it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from export.bundle import DecoderBundle
from service.deploy.swap import Deployer, Deployment
from service.loop.commands import CommandQueue, LoopCommand, RefusedError
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import KEEP_ALIVE_S, UNIT_KEYS, BeatRig
from tests.system.running import wait_until


@pytest.fixture
def bundle(tmp_path: Path) -> DecoderBundle:
    return write_tiny_bundle(tmp_path / "tiny", UNIT_KEYS)


def test_an_exception_that_nobody_expects_is_a_refusal(bundle: DecoderBundle) -> None:
    rig, told = BeatRig(bundle), list[tuple[str, dict[str, Any]]]()
    deployer = Deployer(
        rig.loop, rig.source_keys, lambda *event: told.append(event),
        backends=("onnxruntime-cpu",), token_cap=None, keep_alive_every_s=KEEP_ALIVE_S,
        open_most_s=60.0,
    )  # fmt: skip
    deployment = Deployment(cast(Path, 7))
    deployer.start(deployment)
    wait_until(lambda: deployment.over)
    assert deployment.as_dict()["refused"].startswith("it cannot be used: TypeError")
    assert [event for event, _ in told] == ["refused"]
    deployer.start(Deployment(bundle.path))  # the next one may begin


def test_what_was_given_up_is_not_carried_out_later() -> None:
    queue, carried = CommandQueue(), list[str]()
    with pytest.raises(RefusedError, match="did not promote"):
        queue.ask(LoopCommand("promote"), within_s=0.0)
    queue.carry_out(lambda command: carried.append(command.change) or "")
    assert not carried


def test_what_is_being_carried_out_is_waited_for() -> None:
    queue, begun, may_end = CommandQueue(), threading.Event(), threading.Event()

    def attempt(command: LoopCommand) -> str:
        begun.set()
        may_end.wait(5.0)
        return ""

    loop = threading.Thread(target=lambda: [queue.carry_out(attempt) for _ in range(10**6)
                                            if not begun.is_set()])  # fmt: skip
    loop.start()
    threading.Timer(0.3, may_end.set).start()
    queue.ask(LoopCommand("pause"), within_s=0.2)
    assert may_end.is_set()
    loop.join()
