"""Emulators of devices' programs: real sockets, and the protocols as their authors publish them.

Open Ephys: `ZmqInterface.cpp` of plugin 1.0. RHX: `tcpdataoutputthread.cpp` and `commandparser.cpp`
of 3.4. Each sends what it is told, in the device's own time and numbers.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import zmq

from streams.bridges.intan import GRACE_S

RATE_HZ = 30_000
Spike = tuple[int, int, int]
"""Sample, channel, unit."""


class OpenEphys:
    """The plugin ZMQ Interface: a PUB socket, and a REP socket on the next port for heartbeats."""

    def __init__(self, stream: str = "example_data", n_channels: int = 1) -> None:
        self._stream, self._n_channels = stream, n_channels
        self._context = zmq.Context()
        self.port = self._bind()
        self.message_num = 0
        self.applications: set[str] = set()

    def _bind(self) -> int:
        while True:
            self._data = self._context.socket(zmq.XPUB)
            self._beat = self._context.socket(zmq.REP)
            port = self._data.bind_to_random_port("tcp://127.0.0.1")
            try:
                self._beat.bind(f"tcp://127.0.0.1:{port + 1}")
                return port
            except zmq.ZMQError:
                self._data.close(0)
                self._beat.close(0)

    def wait_for_listener(self) -> None:
        self._data.recv()

    def hear_heartbeats(self) -> None:
        while self._beat.poll(0):
            said = json.loads(self._beat.recv())
            assert said["type"] == "heartbeat"
            self.applications.add(f"{said['application']} {said['uuid']}")
            self._beat.send(b"heartbeat received")

    def send_buffer(self, first: int, n: int, spikes: Sequence[Spike]) -> None:
        """Send a buffer of the GUI: its spikes, then the samples of each channel ticked."""
        self.hear_heartbeats()
        for sample, channel, unit in spikes:
            self.send_spike(sample, f"Electrode {channel}", unit)
        for channel in range(self._n_channels):
            content = {
                "stream": self._stream,
                "channel_num": channel,
                "channel_name": f"CH{channel + 1}",
                "num_samples": n,
                "sample_num": first,
                "sample_rate": float(RATE_HZ),
            }
            self._send(b"DATA\0", "data", {"content": content, "data_size": 4 * n}, bytes(4 * n))

    def send_spike(self, sample: int, electrode: str, unit: int, stream: str = "") -> None:
        spike = {
            "stream": stream or self._stream,
            "source_node": 104,
            "electrode": electrode,
            "sample_num": sample,
            "num_channels": 1,
            "num_samples": 40,
            "sorted_id": unit,
            "threshold": [-50.0],
        }
        self._send(b"EVENT\0", "spike", {"spike": spike}, bytes(160))

    def send_event(self, sample: int) -> None:
        content = {"stream": self._stream, "source_node": 100, "type": 3, "sample_num": sample}
        self._send(b"EVENT\0", "event", {"content": content, "data_size": 10}, bytes(10))

    def send_raw(self, *frames: bytes) -> None:
        self._data.send_multipart(frames)

    def lose(self, n: int) -> None:
        """Number as if so many messages had been sent."""
        self.message_num += n

    def _send(self, envelope: bytes, kind: str, body: dict[str, object], data: bytes) -> None:
        self.message_num += 1
        stamp = {"timestamp": int(time.time() * 1e3)}
        header = {"message_num": self.message_num, "type": kind} | body | stamp
        self._data.send_multipart([envelope, json.dumps(header).encode(), data])

    def close(self) -> None:
        self._data.close(0)
        self._beat.close(0)
        self._context.term()


@dataclass
class Rhx:
    """RHX: a command server, and servers of waveforms and spikes that listen once told to."""

    n_signals: int = 0
    settings: dict[str, str] = field(default_factory=lambda: {"runmode": "Stop"})
    n_held_up: int = 0
    """Spikes of blocks between whose two writes this process stood still."""

    def __post_init__(self) -> None:
        while True:
            self._servers = [socket.socket() for _ in range(3)]
            try:
                self._servers[0].bind(("127.0.0.1", 0))
                self.port: int = self._servers[0].getsockname()[1]
                for i in (1, 2):
                    self._servers[i].bind(("127.0.0.1", self.port + i))
                break
            except OSError:
                for server in self._servers:
                    server.close()
        self._servers[0].listen()
        self._peers: list[socket.socket | None] = [None, None, None]
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        return None not in self._peers

    def write(self, first: int, n_blocks: int, spikes: Sequence[Spike]) -> None:
        """Write some blocks: their waveforms to one socket, then their spikes to the other."""
        _, waveforms, spike_socket = self._peers
        t_begun = time.monotonic()
        frame = np.dtype([("sample", "<u4"), ("signals", "<u2", (self.n_signals,))])
        for i in range(n_blocks):
            frames = np.zeros(128, frame)
            frames["sample"] = (first + 128 * i + np.arange(128)) % 2**32
            if waveforms:
                waveforms.sendall(struct.pack("<I", 0x2EF07A08) + frames.tobytes())
        if spike_socket:
            spike_socket.sendall(b"".join(rhx_spike(*spike) for spike in spikes))
        if time.monotonic() - t_begun > GRACE_S / 2:
            self.n_held_up += len(spikes)

    def hang_up(self) -> None:
        for i in (1, 2):
            peer, self._peers[i] = self._peers[i], None
            if peer:
                peer.close()

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()
        self.hang_up()
        for one in (*self._servers, self._peers[0]):
            if one:
                one.close()

    def _serve(self) -> None:
        while not self._is_closed:
            control = self._peers[0]
            watched = [s for s, p in zip(self._servers, self._peers, strict=True) if p is None]
            watched += [control] if control else []
            ready = select.select([s for s in watched if s.fileno() >= 0], [], [], 0.01)[0]
            for one in ready:
                if one is control:
                    self._obey(control)
                else:
                    self._accept(one)

    def _accept(self, server: socket.socket) -> None:
        try:
            self._peers[self._servers.index(server)] = server.accept()[0]
        except OSError:
            return

    def _obey(self, control: socket.socket) -> None:
        said = control.recv(4096)
        if not said:
            control.close()
            self._peers[0] = None
            return
        for command in filter(None, said.decode().split(";")):
            verb, name, *value = command.split(" ")
            key = name.lower()
            if verb == "get" and key == "sampleratehertz":
                control.sendall(f"Return: SampleRateHertz {RATE_HZ}".encode())
            elif verb == "get" and key == "runmode":
                control.sendall(f"Return: RunMode {self.settings['runmode']}".encode())
            elif verb == "set":
                self.settings[key] = value[0]
            elif verb == "execute" and key.startswith("connecttcp"):
                self._servers[1 if "waveform" in key else 2].listen()
            else:
                control.sendall(b"Unrecognized parameter")


def rhx_spike(sample: int, channel: int, unit: int) -> bytes:
    """The 14 bytes of a spike."""
    name = f"{chr(ord('A') + channel // 128)}-{channel % 128:03d}".encode()
    return struct.pack("<I5sIB", 0x3AE2710F, name, sample % 2**32, unit)
