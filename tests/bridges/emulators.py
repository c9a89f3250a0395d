"""Emulators of devices' programs: real sockets, and the protocols as their authors publish them.

Open Ephys: `ZmqInterface.cpp` of plugin 1.0. RHX: `tcpdataoutputthread.cpp` and `commandparser.cpp`
of 3.4. Blackrock: `cbproto/types.h` of CereLink, protocol 4.2, with nPlayServer's addresses. Each
sends what it is told, in the device's own time and numbers.
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


NPLAY_PORT, CLIENT_PORT = 51001, 51002
"""Where nPlayServer listens, and where its clients do; both stand in the protocol."""
CONFIGURATION = 0x8000
HEARTBEAT, REPCONFIGALL, SYSREP, SYSREPRUNLEV, PROCREP, CHANREP, NPLAYREP = (
    0x00, 0x08, 0x10, 0x12, 0x21, 0x40, 0x5C,
)  # fmt: skip
SYSSETRUNLEV, REQCONFIGALL, NPLAYSET = 0x92, 0x88, 0xDC
RUNNING = 50
WAVE_SAMPLES, WAVE_REST = 48, 38
"""A spike's waveform, and how much of it comes after the spike's time."""
CB_HEADER = struct.Struct("<QHHHBB")
_FRONTEND = 0x0107  # exists, connected, isolated, analog input
_CHANINFO_BYTES, _LARGEST_DATAGRAM = 664, 1400


def cb_packet(sample: int, chid: int, kind: int, payload: bytes = b"") -> bytes:
    """A packet of protocol 4.1 and later: header, then words of 32 bits."""
    payload += bytes(-len(payload) % 4)
    return CB_HEADER.pack(sample, chid, kind, len(payload) // 4, 0, 0) + payload


def cb_packets(datagram: bytes) -> list[tuple[int, int, int, bytes]]:
    """Time, channel, type and payload of each packet in a datagram."""
    found, i = [], 0
    while i + CB_HEADER.size <= len(datagram):
        sample, chid, kind, n_words, _, _ = CB_HEADER.unpack_from(datagram, i)
        i += CB_HEADER.size
        found.append((sample, chid, kind, datagram[i : i + 4 * n_words]))
        i += 4 * n_words
    return found


class Nplay:
    """nPlayServer: UDP packets to one client on this host, answers to what it asks for.

    Args:
        n_channels: front-end channels, from 1.
    """

    def __init__(self, n_channels: int = 96) -> None:
        self._n_channels = n_channels
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", NPLAY_PORT))
        self._socket.settimeout(0.02)
        self._sample, self._heartbeat_at = 1, 0
        self.n_configured = 0
        """How often the configuration was asked for; a client does so twice."""
        self._is_closed = False
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def send(self, first: int, n: int, spikes: Sequence[Spike]) -> None:
        """Send what some samples of the recording bring: spikes, and a heartbeat each 10 ms."""
        self._sample = first + n
        packets = [self._spike(*spike) for spike in spikes]
        if self._sample >= self._heartbeat_at:
            self._heartbeat_at = self._sample + RATE_HZ // 100
            packets.append(cb_packet(self._sample, CONFIGURATION, HEARTBEAT))
        self._send(packets)

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()
        self._socket.close()

    @staticmethod
    def _spike(sample: int, channel: int, unit: int) -> bytes:
        shape = struct.pack("<3f2h", 0.0, 0.0, 0.0, 0, 0) + bytes(2 * WAVE_SAMPLES)
        return cb_packet(sample, channel, unit, shape)

    def _send(self, packets: Sequence[bytes]) -> None:
        datagram = b""
        for packet in packets:
            if len(datagram) + len(packet) > _LARGEST_DATAGRAM:
                self._socket.sendto(datagram, ("127.0.0.1", CLIENT_PORT))
                datagram = b""
            datagram += packet
        if datagram:
            self._socket.sendto(datagram, ("127.0.0.1", CLIENT_PORT))

    def _answer(self) -> None:
        while not self._is_closed:
            try:
                asked = self._socket.recv(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
            for _, _, kind, payload in cb_packets(asked):
                self._send(self._reply(kind, payload))

    def _reply(self, kind: int, payload: bytes) -> list[bytes]:
        now = self._sample
        system = struct.pack("<6I", RATE_HZ, WAVE_SAMPLES, 10, 0, RUNNING, 0)
        if kind == SYSSETRUNLEV:
            return [cb_packet(now, CONFIGURATION, SYSREPRUNLEV, system)]
        if kind == NPLAYSET:
            return [cb_packet(now, CONFIGURATION, NPLAYREP, payload)]
        if kind != REQCONFIGALL:
            return []
        self.n_configured += 1
        counts = (1, self._n_channels, 1, 6, 0, self._n_channels, 5, 4, 0, 4 << 16 | 2)
        processor = struct.pack("<2I64s10I", 1, 0, b"nPlay", *counts)
        channels = [
            struct.pack("<5I", channel, 1, 1, channel, _FRONTEND).ljust(_CHANINFO_BYTES, b"\0")
            for channel in range(1, self._n_channels + 1)
        ]
        return [
            cb_packet(now, CONFIGURATION, REPCONFIGALL),
            cb_packet(now, CONFIGURATION, PROCREP, processor),
            *(cb_packet(now, CONFIGURATION, CHANREP, channel) for channel in channels),
            cb_packet(now, CONFIGURATION, SYSREP, system),
        ]
