"""Shaping changes while decodes go out, and each change is an event on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from streams.wire.schema import Command, encode
from tests.system.running import Daemon, Process
from tests.system.sources import Living


def test_gain_bias_and_bounds_act_at_once(daemon: Daemon, source: Living) -> None:
    arguments = {"gain": 2.0, "bias": [1.0, -1.0], "bounds": {"position": [-0.5, 0.5]}}
    assert daemon.send(encode(Command(command="shape", arguments=arguments))).ok
    event = daemon.until_event("shaped", source.send_due)
    assert event["detail"]["gain"] == 2.0
    daemon.until_validity("ok", source.send_due)
    decode = daemon.until_validity("ok", source.send_due)
    raw, value = decode["value_raw"], decode["value"]
    assert value["velocity"] == pytest.approx(
        [2.0 * (raw["velocity"][0] - 1.0), 2.0 * (raw["velocity"][1] + 1.0)]
    )
    assert all(-0.5 <= x <= 0.5 for x in value["position"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"gain": -1.0}, "gain"),
        ({"smoothing": 1.0}, "smoothing"),
        ({"gian": 2.0}, "gain"),
        ({"bounds": {"position": [1.0, -1.0]}}, "low < high"),
        ({"lead_s": 9.0}, "lead_s"),
    ],
)
def test_impossible_shaping_is_refused(daemon: Daemon, arguments: dict, said: str) -> None:
    reply = daemon.send(encode(Command(command="shape", arguments=arguments)))
    assert not reply.ok
    assert said in reply.error


def test_the_command_line_shapes(daemon: Daemon, run: Callable[..., Process]) -> None:
    shape = run("shape", "gain=0.5", "max_speed=3", "--control", daemon.control, "--json")
    assert shape.code() == 0
    assert json.loads(shape.out)["result"]["gain"] == 0.5
    status = daemon.ask("status").result
    assert status["shaping"]["gain"] == 0.5
    assert status["shaping"]["max_speed"] == 3
