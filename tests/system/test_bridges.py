"""`spikeloop bridge` between an emulated device and a daemon: each spike is used, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bridges.emulators import RATE_HZ, OpenEphys, Rhx
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, DaemonStarter
from tests.system.running import Process, clock, wait_until

BLOCK = 128
CHANNELS = tuple(range(1, 9))
Write = Callable[[int, list[tuple[int, int, int]]], object]


class Device:
    """Sends blocks as they fall due, in each a spike of the next channel; it begins at `first`."""

    def __init__(self, write: Write, first: int = 0) -> None:
        self._write, self._next, self._begun_s = write, first, clock.now() - first / RATE_HZ
        self.n_sent = 0

    def send_due(self) -> None:
        while self._begun_s + (self._next + BLOCK) / RATE_HZ <= clock.now():
            self.n_sent += 1
            channel = CHANNELS[self.n_sent % len(CHANNELS)]
            self._write(self._next, [(self._next + 5, channel, 1)])
            self._next += BLOCK


@pytest.fixture(params=["openephys", "intan"])
def emulated(request: pytest.FixtureRequest) -> Iterator[tuple[str, int, Write]]:
    """Name of the bridge, port of the device, and what makes it send a block."""
    if request.param == "openephys":
        gui = OpenEphys()
        yield request.param, gui.port, lambda at, spikes: gui.send_buffer(at, BLOCK, spikes)
        gui.close()
    else:
        rhx = Rhx()
        yield request.param, rhx.port, lambda at, spikes: rhx.write(at, 1, spikes)
        rhx.close()


@pytest.mark.alone  # the device's blocks come from this process: held up, they come late
def test_a_daemon_decodes_a_bridged_device(
    emulated: tuple[str, int, Write],
    run: Callable[..., Process],
    serve: DaemonStarter,
    stream: str,
    tmp_path: Path,
) -> None:
    name, port, write = emulated
    bundle = tmp_path / "bundle"
    keys = tuple(f"ch{channel}/u1" for channel in CHANNELS)
    write_tiny_bundle(bundle, keys, HOP_S, HOP_S)
    bridge = run("bridge", name, "--port", str(port), "--name", stream)
    daemon = serve(stream, bundle, input={"wait_s": 30.0}, beat={"settle_ms": "auto"})
    device = Device(write)
    daemon.until_validity("ok", device.send_due)
    before = daemon.ask("status").result["fates"]
    n_sent = device.n_sent
    wait_until(lambda: device.n_sent >= n_sent + 500, device.send_due)
    after = daemon.until_settled(before["used"] + 400, device.send_due)["fates"]
    assert after["used"] - before["used"] >= 0.98 * (sum(after.values()) - sum(before.values()))
    for fate in ("duplicate", "future", "invalid", "unknown_unit"):
        assert after[fate] == 0, after
    daemon.until_validity("stale")  # the device falls silent: nobody says that it is alive
    again = Device(write)
    daemon.until_validity("ok", again.send_due)
    bridge.signal(15)
    assert bridge.code() == 0
    assert "restarts" in bridge.err
    assert daemon.end() == 0
