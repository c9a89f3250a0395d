"""What the bridges add: `python -m benchmarks.bridges [NAME ...]`.

An emulator of each device sends spikes in blocks, in a process of its own: first to a bare receiver
of its protocol, then to `spikeloop bridge`, whose stream is received from LSL. Both times run from
the emulator's write to the receiver's read; the difference is what bridge and LSL add.
`blackrock` is left out where pycbsdk or its library does not load.
"""

from __future__ import annotations

import json
import multiprocessing
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pylsl
import zmq

from streams.lsl.inlets import quieten
from tests.bridges.emulators import (
    CLIENT_PORT,
    CONFIGURATION,
    NPLAY_PORT,
    RATE_HZ,
    REQCONFIGALL,
    WAVE_REST,
    Nplay,
    OpenEphys,
    Rhx,
    cb_packet,
    cb_packets,
)

BLOCK, N_UNITS, SECONDS, RATE_PER_UNIT_HZ = 128, 96, 20.0, 20.0
MS_BLOCK = RATE_HZ // 1000
SETTLE_S = 0.5
Heard = tuple[float, int, int]
"""When it was received, and channel and unit."""


@dataclass(frozen=True)
class Device:
    """How a device is emulated, received bare, and bridged."""

    emulate: Callable[[Connection], Any]
    receive: Callable[[int], Callable[[], list[Heard]]]
    arguments: Callable[[int], list[str]]
    block: int = BLOCK


def open_ephys(pipe: Connection) -> Callable[[int, list[tuple[int, int, int]]], None]:
    """The GUI with one channel ticked."""
    gui = OpenEphys()
    pipe.send(gui.port)
    gui.wait_for_listener()
    return lambda first, spikes: gui.send_buffer(first, BLOCK, spikes)


def intan(pipe: Connection) -> Callable[[int, list[tuple[int, int, int]]], None]:
    """RHX with spike outputs alone."""
    rhx = Rhx()
    pipe.send(rhx.port)
    while not rhx.is_connected:
        time.sleep(0.01)
    return lambda first, spikes: rhx.write(first, 1, spikes)


def blackrock(pipe: Connection) -> Callable[[int, list[tuple[int, int, int]]], None]:
    """nPlayServer, each datagram 1 ms; a spike leaves when its waveform is whole."""
    nplay = Nplay(N_UNITS)
    pipe.send(NPLAY_PORT)
    while not nplay.n_configured:
        time.sleep(0.01)

    def send(first: int, spikes: list[tuple[int, int, int]]) -> None:
        crossed = [
            (RATE_HZ + sample - WAVE_REST, channel, unit) for sample, channel, unit in spikes
        ]
        nplay.send(RATE_HZ + first, MS_BLOCK, crossed)

    return send


def json_program(pipe: Connection) -> Callable[[int, list[tuple[int, int, int]]], None]:
    """A publisher of one message a block."""
    publisher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
    pipe.send(publisher.bind_to_random_port("tcp://127.0.0.1"))
    publisher.recv()

    def send(first: int, spikes: list[tuple[int, int, int]]) -> None:
        columns = [list(column) for column in zip(*spikes, strict=True)] or [[], [], []]
        message = dict(zip(("t", "channel", "unit"), columns, strict=True))
        publisher.send_json(message | {"now": first + BLOCK})

    return send


def emulate(name: str, pipe: Connection, seconds: float) -> None:
    """Send blocks at the device's pace; at the end, say when each spike was sent."""
    send, rng = DEVICES[name].emulate(pipe), np.random.default_rng(0)
    pipe.recv()
    time.sleep(SETTLE_S)
    sent: list[Heard] = []
    block = DEVICES[name].block
    begun_s, block_s = time.monotonic(), block / RATE_HZ
    for i in range(int(seconds / block_s)):
        time.sleep(max(0.0, begun_s + (i + 1) * block_s - time.monotonic()))
        n = rng.poisson(N_UNITS * RATE_PER_UNIT_HZ * block_s)
        # Waveforms are whole when the block ends.
        samples = np.sort(rng.integers(i * block, (i + 1) * block, n))
        channels, units = rng.integers(1, N_UNITS + 1, n), 1 << rng.integers(0, 3, n)
        spikes = list(zip(samples.tolist(), channels.tolist(), units.tolist(), strict=True))
        sent += [(time.monotonic(), channel, unit) for _, channel, unit in spikes]
        send(i * block, spikes)
    pipe.send(sent)
    pipe.recv()


def receive_zmq(read: Callable[[Sequence[bytes], float], list[Heard]]) -> Any:
    """A bare subscriber."""

    def connect(port: int) -> Callable[[], list[Heard]]:
        subscriber: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        subscriber.subscribe("")
        subscriber.connect(f"tcp://127.0.0.1:{port}")

        def take() -> list[Heard]:
            if not subscriber.poll(100):
                return []
            frames = subscriber.recv_multipart()
            return read(frames, time.monotonic())

        return take

    return connect


def read_open_ephys(frames: Sequence[bytes], now_s: float) -> list[Heard]:
    """A spike of the plugin's."""
    spike = json.loads(frames[1]).get("spike")
    return [(now_s, int(spike["electrode"].split()[1]), spike["sorted_id"])] if spike else []


def read_json(frames: Sequence[bytes], now_s: float) -> list[Heard]:
    """A block of the publisher's."""
    said = json.loads(frames[0])
    return [(now_s, c, u) for c, u in zip(said["channel"], said["unit"], strict=True)]


def receive_intan(port: int) -> Callable[[], list[Heard]]:
    """A bare client of RHX's ports."""
    control = socket.create_connection(("127.0.0.1", port))
    control.sendall(b"execute connecttcpwaveformdataoutput;execute connecttcpspikedataoutput;")
    time.sleep(SETTLE_S)
    waveforms = socket.create_connection(("127.0.0.1", port + 1))
    spikes = socket.create_connection(("127.0.0.1", port + 2))
    rest = b""

    def take() -> list[Heard]:
        nonlocal rest
        ready, _, _ = select.select([control, waveforms, spikes], [], [], 0.1)
        if waveforms in ready:
            waveforms.recv(1 << 16)
        if spikes not in ready:
            return []
        rest += spikes.recv(1 << 16)
        now_s, n = time.monotonic(), len(rest) // 14 * 14
        found = [(now_s, int(rest[i + 6 : i + 9]), rest[i + 13]) for i in range(0, n, 14)]
        rest = rest[n:]
        return found

    return take


def receive_blackrock(port: int) -> Callable[[], list[Heard]]:
    """A bare client of nPlayServer."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("127.0.0.1", CLIENT_PORT))
    client.settimeout(0.1)
    client.sendto(cb_packet(1, CONFIGURATION, REQCONFIGALL), ("127.0.0.1", port))

    def take() -> list[Heard]:
        try:
            datagram = client.recv(2048)
        except TimeoutError:
            return []
        now_s, packets = time.monotonic(), cb_packets(datagram)
        return [(now_s, chid, kind) for _, chid, kind, _ in packets if chid < CONFIGURATION]

    return take


def receive_lsl(name: str) -> Callable[[], list[Heard]]:
    """An inlet of the bridge's stream."""
    inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", name, 1, 20)[0])
    inlet.open_stream(10)

    def take() -> list[Heard]:
        sample, _ = inlet.pull_sample(0.1)
        if sample is None:
            return []
        now_s, (more, _) = time.monotonic(), inlet.pull_chunk(0.0, 4096)
        return [(now_s, c, u) for c, u, _ in [sample, *more] if u >= 0]

    return take


DEVICES: dict[str, Device] = {
    "openephys": Device(
        open_ephys, receive_zmq(read_open_ephys), lambda port: ["openephys", "--port", str(port)]
    ),
    "intan": Device(intan, receive_intan, lambda port: ["intan", "--port", str(port)]),
    "blackrock": Device(
        blackrock, receive_blackrock, lambda port: ["blackrock", "NPLAY"], block=MS_BLOCK
    ),
    "json": Device(
        json_program,
        receive_zmq(read_json),
        lambda port: ["json", f"tcp://127.0.0.1:{port}", "--rate-hz", str(RATE_HZ)],
    ),
}


def measure(name: str, seconds: float, is_bridged: bool) -> tuple[list[Heard], list[Heard], str]:
    """Run an emulator; what was sent, what was received, and what the bridge says."""
    pipe, other = multiprocessing.Pipe()
    emulator = multiprocessing.get_context("spawn").Process(
        target=emulate, args=(name, other, seconds), daemon=True
    )
    emulator.start()
    port, said = pipe.recv(), ""
    bridge = None
    if is_bridged:
        stream = f"bridge-{uuid.uuid4().hex[:8]}"
        script = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"
        arguments = ["bridge", *DEVICES[name].arguments(port), "--name", stream]
        command = [sys.executable, "-c", script, *arguments]
        bridge = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        take = receive_lsl(stream)
    else:
        take = DEVICES[name].receive(port)
    pipe.send("go")
    heard: list[Heard] = []
    while not pipe.poll(0):
        heard += take()
    sent: list[Heard] = pipe.recv()
    while more := take():
        heard += more
    pipe.send("end")
    emulator.join()
    del take  # an inlet whose outlet goes first complains
    if bridge is not None:
        bridge.send_signal(signal.SIGTERM)
        said = bridge.communicate()[1].splitlines()[-1]
    return sent, heard, said


def main(names: Sequence[str]) -> int:
    """Print a line a device; 1 if a spike was lost, came twice or out of order."""
    quieten()
    n_wrong = 0
    for name in names or _at_hand():
        ways = []
        for is_bridged in (False, True):
            sent, heard, said = measure(name, SECONDS, is_bridged)
            is_whole = [one[1:] for one in sent] == [one[1:] for one in heard]
            n_wrong += not is_whole
            n = min(len(sent), len(heard))
            way_s = np.array([h[0] - s[0] for h, s in zip(heard[:n], sent[:n], strict=True)])
            # The first blocks wait until the device's clock is known.
            ways.append(np.percentile(way_s[n // 10 :] * 1e3, [50, 99]))
            how = "bridged" if is_bridged else "bare"
            sys.stdout.write(
                f"{name:10} {how:8} {len(sent)} spikes in, {len(heard)} out, "
                f"{'all once and in order' if is_whole else 'NOT ALL ONCE'}; "
                f"p50 {ways[-1][0]:.3f}, p99 {ways[-1][1]:.3f} ms\n"
            )
        added = ways[1] - ways[0]
        sys.stdout.write(f"{name:10} adds     p50 {added[0]:.3f}, p99 {added[1]:.3f} ms\n{said}\n")
        sys.stdout.flush()
    return int(n_wrong > 0)


def _at_hand() -> list[str]:
    try:
        from pycbsdk import Session

        Session.version()
    except (ImportError, OSError) as err:
        sys.stderr.write(f"without blackrock: {err}\n")
        return [name for name in DEVICES if name != "blackrock"]
    return list(DEVICES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
