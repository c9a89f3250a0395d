"""What the Python client has beyond the rules: a value between two decodes, and ways to ask."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
from types import ModuleType
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.clients import CLIENTS
from tests.system.running import wait_until

HOP_S, DELAY_S = 0.02, 0.007
SAFE = {"velocity": [0.0, 0.0]}


@pytest.fixture(scope="module")
def client() -> ModuleType:
    path = CLIENTS / "python" / "spikeloop_client.py"
    spec = importlib.util.spec_from_file_location("spikeloop_client_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def decode(seq: int, velocity: list[float], **changes: Any) -> list[bytes]:
    fields = {
        "schema": 1, "run_id": "a", "seq": seq, "beat": seq, "t_window": seq * HOP_S,
        "validity": "ok", "value": {"velocity": velocity},
    }  # fmt: skip
    return [b"decode", json.dumps(fields | changes).encode()]


number = st.floats(-1e3, 1e3)


@given(st.lists(number, min_size=2, max_size=8), st.lists(st.floats(0, 1), min_size=1))
def test_a_value_between_two_decodes_runs_from_one_to_the_next(
    client: ModuleType, values: list[float], parts: list[float]
) -> None:
    follower = client.Follower(SAFE)
    for seq, v in enumerate(values, 1):
        came_s = seq * HOP_S + DELAY_S
        follower.hear(decode(seq, [v, -v]), came_s)
        before = values[seq - 2] if seq > 1 else v
        for part in parts:
            at = follower.value_at(came_s + part * HOP_S).value["velocity"]
            wanted = before + part * (v - before)
            assert at == pytest.approx([wanted, -wanted], abs=1e-6)
        # After a hop it stays: nothing is extrapolated.
        assert follower.value_at(came_s + 1.5 * HOP_S).value["velocity"] == pytest.approx([v, -v])


@pytest.mark.parametrize(
    "heard",
    [
        [decode(1, [9.0]), decode(2, [5.0], validity="paused"), decode(3, [1.0])],
        [decode(2, [9.0]), decode(3, [1.0], run_id="b")],
        [decode(1, [9.0]), decode(31, [1.0])],
    ],
    ids=["paused", "restart", "hole"],
)
def test_it_does_not_run_across_what_is_no_neighbour(
    client: ModuleType, heard: list[list[bytes]]
) -> None:
    follower = client.Follower({"velocity": [0.0]})
    for frames in heard:
        came_s = json.loads(frames[1])["t_window"] + DELAY_S
        follower.hear(frames, came_s)
    told = follower.value_at(came_s + HOP_S / 2)
    assert told.usable
    assert told.value == {"velocity": [1.0]}


def test_what_may_not_be_used_is_not_interpolated(client: ModuleType) -> None:
    follower = client.Follower(SAFE)
    follower.hear(decode(1, [1.0, 1.0]), HOP_S)
    follower.hear(decode(2, [3.0, 3.0]), 2 * HOP_S)
    old = follower.value_at(2 * HOP_S + 0.5)
    assert (old.why, old.value) == ("old", SAFE)


def test_the_clock_of_another_machine_is_added(client: ModuleType) -> None:
    follower = client.Follower(SAFE, offset_s=1000.0)
    follower.hear(decode(50_000, [1.0, 2.0]), 1.0)
    answer = follower.now(0.01)
    assert answer.age_s == pytest.approx(0.01)
    assert answer.usable


def test_it_calls_back_or_takes_in_all_that_waits(client: ModuleType) -> None:
    publisher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
    publisher.bind("tcp://127.0.0.1:*")
    with client.SpikeloopClient(
        publisher.getsockopt_string(zmq.LAST_ENDPOINT), safe=SAFE, stale_s=60
    ) as one:
        for _ in client.TOPICS:
            publisher.recv()
        for seq in range(1, 6):
            publisher.send_multipart(decode(seq, [seq, 0.0], t_window=time.monotonic()))
        heard: list[int] = []

        def act(answer: Any) -> bool:
            heard.append(answer.seq)
            return answer.seq < 3

        one.run(act)
        assert heard == [1, 2, 3]
        wait_until(lambda: one.update().seq == 5)
        assert one.value_at().value["velocity"][0] in (pytest.approx(4.0, abs=1), 5.0)
    publisher.close(0)


def test_without_a_daemon_the_clock_is_asked_in_vain(client: ModuleType) -> None:
    nobody: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    nobody.bind("tcp://127.0.0.1:*")
    with pytest.raises(TimeoutError, match="no daemon answered"):
        client.daemon_clock(nobody.getsockopt_string(zmq.LAST_ENDPOINT))
    nobody.close(0)


def test_before_any_decode_there_is_the_safe_value(client: ModuleType) -> None:
    answer = client.Follower(SAFE).now(5.0)
    assert (answer.why, answer.value, answer.usable) == ("none", SAFE, False)
    assert math.isinf(answer.age_s)
