"""The client of a running daemon: where decodes come from when the daemon listens everywhere."""

from __future__ import annotations

import pytest

from streams.wire.client import reachable


@pytest.mark.parametrize(
    ("bound", "control", "reached"),
    [
        ("tcp://127.0.0.1:5570", "tcp://127.0.0.1:5571", "tcp://127.0.0.1:5570"),
        ("tcp://10.0.0.7:5570", "tcp://gateway:9", "tcp://10.0.0.7:5570"),
        ("tcp://0.0.0.0:5570", "tcp://rig-a:5571", "tcp://rig-a:5570"),
        ("tcp://[::]:5570", "tcp://[fe80::1]:5571", "tcp://[fe80::1]:5570"),
    ],
)
def test_a_daemon_that_listens_everywhere_is_reached_where_it_answered(
    bound: str, control: str, reached: str
) -> None:
    assert reachable(bound, control) == reached
