"""The JSON bridge against programs that send over ZeroMQ and UDP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import numpy as np
import pytest
import zmq

from streams.bridges.json_messages import JsonSource, Names
from streams.errors import AddressError
from tests.bridges.rig import Rig, clock


@pytest.fixture
def publisher() -> Iterator[zmq.Socket[bytes]]:
    made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
    made.bind("tcp://127.0.0.1:*")
    yield made
    made.close(0)


def endpoint(publisher: zmq.Socket[bytes]) -> str:
    return publisher.getsockopt_string(zmq.LAST_ENDPOINT)


def test_spikes_over_zeromq(publisher: zmq.Socket[bytes]) -> None:
    rig = Rig(JsonSource(clock, endpoint(publisher)))
    publisher.recv()
    begun_s = clock.now() - 500.0
    for i in range(60):
        clock.sleep_until(clock.now() + 0.005)
        now = clock.now() - begun_s
        spikes = [{"t": now - 0.004, "channel": i, "unit": 2}, {"t": now - 0.001, "channel": 5}]
        for message in (*spikes, {"now": now}):
            publisher.send_multipart([b"topic", json.dumps(message | {"other": "x"}).encode()])
    publisher.send(b"no json")
    rig.until(lambda: len(rig.stamps) >= 120 and rig.passed.n_refused == 1)
    assert rig.ids.tolist() == [one for i in range(60) for one in ([i, 2], [5, 0])]
    assert len(rig.watermarks) >= 40
    assert rig.n_behind() == 0
    rig.close()


def test_samples_in_lists_over_udp_and_what_was_lost() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = Names(
        time="sample", channel="ch", unit="cluster", spikes="data.spikes", now="clock", number="n"
    )
    source = JsonSource(clock, f"udp://127.0.0.1:{port}", names, rate_hz=1000.0)
    rig = Rig(source)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for i in range(50):
            clock.sleep_until(clock.now() + 0.01)
            spikes = {"sample": [10 * i, 10 * i + 4], "ch": [1, 2], "cluster": [3, 4]}
            number = i + (6 if i > 20 else 0)
            message = {"data": {"spikes": spikes}, "clock": 10 * i + 10, "n": number}
            sender.sendto(json.dumps(message).encode(), ("127.0.0.1", port))
        rig.until(lambda: len(rig.stamps) >= 100)
        assert rig.ids.tolist() == [[1, 3], [2, 4]] * 50
        assert rig.passed.n_lost == 6
        assert np.allclose(np.diff(rig.stamps)[60::2], 0.004, atol=1e-4)
        sender.sendto(
            b'{"data":{"spikes":{"sample":[7],"ch":[],"cluster":[]}}}', ("127.0.0.1", port)
        )
        rig.until(lambda: rig.passed.n_refused == 1)
    rig.close()


def test_numbers_that_begin_anew_are_a_restart(publisher: zmq.Socket[bytes]) -> None:
    rig = Rig(JsonSource(clock, endpoint(publisher)))
    publisher.recv()
    for begun_s in (0.0, 70.0):
        for i in range(30):
            clock.sleep_until(clock.now() + 0.005)
            message = {"t": clock.now() + begun_s, "channel": 1, "unit": 1, "seq": i}
            publisher.send_json(message)
    rig.until(lambda: len(rig.stamps) >= 60)
    assert rig.passed.n_restarts == 1
    assert abs(rig.stamps[-1] - clock.now()) < 5
    rig.close()


@pytest.mark.parametrize(
    "address", ["udp://", "tcp://127.0.0.1", "http://a:1", "udp://192.0.2.1:1"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(AddressError, match=r"tcp://HOST:PORT|cannot listen"):
        JsonSource(clock, address)
