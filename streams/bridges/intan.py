"""Spikes of Intan's RHX, by its TCP sockets (read in its source, 3.4).

RHX answers commands on one port, and writes two more: the waveform port, of which only the clock
is read here, and the spike port, of 14 bytes a spike. It writes the waveforms of some blocks of 128
samples, and then their spikes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streams.bridges.blocks import Block
from streams.clock import Clock
from streams.messages import Float64s, Int32s, Int64s

Uint32s = npt.NDArray[np.uint32]

SPIKE_MAGIC, WAVEFORM_MAGIC = 0x3AE2710F, 0x2EF07A08
SPIKE = np.dtype([("magic", "<u4"), ("name", "S5"), ("sample", "<u4"), ("kind", "u1")])
SAMPLES_A_BLOCK = 128
CHANNELS_A_PORT = 128
GRACE_S = 1e-3
"""How long after a block's waveforms its spikes may come: another socket, written at once."""
AGAIN_EVERY_S, ANSWER_WITHIN_S = 0.5, 2.0
RECEIVE_BYTES = 1 << 18
CONNECT = ("execute ConnectTCPWaveformDataOutput", "execute ConnectTCPSpikeDataOutput")


class IntanSource:
    """Reads RHX's sockets, and sets its outputs up where it does not run yet.

    Args:
        clock: LSL's.
        host: where RHX runs.
        ports: of commands, waveforms and spikes.
        channels: native names, `A-010`, whose spikes RHX is told to send; none where they are
            ticked in RHX itself.
        start: whether RHX is told to run.
        rate_hz: where nobody answers on the command port.
    """

    def __init__(
        self,
        clock: Clock,
        host: str = "127.0.0.1",
        ports: tuple[int, int, int] = (5000, 5001, 5002),
        channels: Sequence[str] = (),
        start: bool = False,
        rate_hz: float = 30_000.0,
    ) -> None:
        self._clock, self._host, self._ports = clock, host, ports
        self._channels, self._start, self._rate_hz = channels, start, rate_hz
        self.warnings: list[str] = []
        self._control: socket.socket | None = None
        self._data: list[socket.socket] = []
        self._due_s, self._said = 0.0, ""
        self._begin()

    def _begin(self) -> None:
        """Forget what earlier connections sent."""
        self._waveforms, self._rest = WaveformClock(), b""
        self._waiting: deque[tuple[int, float]] = deque()
        self._newest: tuple[float, float] | None = None

    def read(self, timeout_s: float) -> Sequence[Block]:
        """Wait for spikes or for the end of a block, and return what came."""
        if not self._data and not self._connect():
            self._clock.sleep_until(self._clock.now() + timeout_s)
            return ()
        due_s = self._waiting[0][1] + GRACE_S if self._waiting else np.inf
        wait_s = min(timeout_s, max(0.0, due_s - self._clock.now()))
        control = [self._control] if self._control else []
        ready, _, _ = select.select([*self._data, *control], [], [], wait_s)
        came_s = self._clock.now()
        waveforms, spikes, said = (
            _receive(one) if one and one in ready else b"" for one in (*self._data, self._control)
        )
        is_over = None in (waveforms, spikes, said)
        # A block is whole by `came_s`: what was written until then is taken before that is said.
        if is_over or (self._waiting and self._waiting[0][1] + GRACE_S <= came_s):
            spikes = (spikes or b"") + self._left()
        self._take_waveforms(waveforms or b"", came_s)
        blocks = self._blocks(*self._take_spikes(spikes or b""), came_s)
        if said:
            self.warnings.append(f"RHX says: {said.decode('latin1').strip()}")
        if is_over:
            self._hang_up("RHX hung up; connecting again")
        return blocks

    def close(self) -> None:
        """Hang up."""
        for one in self._data:
            one.close()
        if self._control is not None:
            self._control.close()
        self._data, self._control = [], None

    def _blocks(self, t_s: Float64s, ids: Int32s, n_refused: int, came_s: float) -> Sequence[Block]:
        until = None
        while self._waiting and self._waiting[0][1] + GRACE_S <= came_s:
            until = (self._waiting.popleft()[0] - 1) / self._rate_hz
        newest, self._newest = self._newest, None
        if not len(t_s) and until is None and newest is None and not n_refused:
            return ()
        device_s, arrived_s = newest or (float(t_s.max()) if len(t_s) else None, came_s)
        return (
            Block(
                t_s=t_s,
                ids=ids,
                device_s=device_s,
                arrived_s=arrived_s,
                complete_until_s=until,
                n_refused=n_refused,
            ),
        )

    def _take_waveforms(self, came: bytes, came_s: float) -> None:
        """Note the ends of blocks."""
        end = self._waveforms.feed(came)
        if end is not None:
            self._waiting.append((end, came_s))
            self._newest = (end / self._rate_hz, came_s)

    def _take_spikes(self, came: bytes) -> tuple[Float64s, Int32s, int]:
        """Return times, ids and the number of bytes that are no spike."""
        self._rest += came
        n_refused = 0
        magic = struct.pack("<I", SPIKE_MAGIC)
        if not self._rest.startswith(magic[: len(self._rest)]):
            at = self._rest.find(magic)
            n_refused = 1
            self._rest = self._rest[at:] if at >= 0 else self._rest[-3:]
        n = len(self._rest) // SPIKE.itemsize
        spikes = np.frombuffer(self._rest[: n * SPIKE.itemsize], SPIKE)
        is_spike = spikes["magic"] == SPIKE_MAGIC
        n = n if is_spike.all() else int(np.argmin(is_spike))
        spikes, self._rest = spikes[:n], self._rest[n * SPIKE.itemsize :]
        samples = self._waveforms.unwrap(spikes["sample"])
        channels = [channel_of(name.decode("latin1")) for name in spikes["name"].tolist()]
        ids = np.column_stack((channels, spikes["kind"])).astype(np.int32).reshape(-1, 2)
        known = ids[:, 0] >= 0
        return samples[known] / self._rate_hz, ids[known], n_refused + int(np.sum(~known))

    def _left(self) -> bytes:
        """Return all that lies in the spike port."""
        left = b""
        while select.select([self._data[1]], [], [], 0.0)[0]:
            more = _receive(self._data[1])
            if more is None:
                break
            left += more
        return left

    def _connect(self) -> bool:
        """Connect to all ports, at most twice a second.

        The command port stays connected while the others are tried: RHX listens there once.
        """
        if self._clock.now() < self._due_s:
            return False
        self._due_s = self._clock.now() + AGAIN_EVERY_S
        command, waveforms, spikes = self._ports
        try:
            if self._control is None:
                self._control = self._dial(command)
                self._set_up(self._control)
            _tell(self._control, *CONNECT, *(["set runmode run"] if self._start else []))
            self._data.append(self._dial(waveforms))
            self._data.append(self._dial(spikes))
        except ConnectionRefusedError as err:
            self._hang_up(
                f"no RHX answers at {self._host}, ports {self._ports} ({err}): does it run, and "
                "are its TCP servers connected (menu Network, Remote TCP Control)? Trying on",
                keep_control=True,
            )
            return False
        except OSError as err:
            self._hang_up(f"RHX does not answer ({err}); trying on")
            return False
        self._begin()
        self._say(f"connected to RHX at {self._host}, {self._rate_hz:g} Hz")
        return True

    def _dial(self, port: int) -> socket.socket:
        return socket.create_connection((self._host, port), ANSWER_WITHIN_S)

    def _set_up(self, control: socket.socket) -> None:
        with contextlib.suppress(ValueError):
            self._rate_hz = float(_ask(control, "get sampleratehertz"))
        if _ask(control, "get runmode").lower() != "run":
            commands = ["set TCPNumberDataBlocksPerWrite 1"]
            commands += [f"set {name}.TCPDataOutputEnabledSpike true" for name in self._channels]
            _tell(control, *commands)

    def _hang_up(self, why: str, keep_control: bool = False) -> None:
        control, self._control = self._control, None
        if keep_control:
            control, self._control = None, control
        for one in (*self._data, *([control] if control else [])):
            one.close()
        self._data = []
        self._say(why)

    def _say(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self.warnings.append(what)


class WaveformClock:
    """Finds the blocks in what the waveform port sends, whatever is in them.

    A block is a magic number and 128 frames; a frame is a sample number and two bytes for each
    signal that is sent. How many those are is found from the distance between two blocks.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._newest = 0
        self._magic = struct.pack("<I", WAVEFORM_MAGIC)

    def feed(self, came: bytes) -> int | None:
        """Take in bytes; the sample number after the newest whole block's last, if one ended."""
        self._rest += came
        end: int | None = None
        while True:
            if not self._rest.startswith(self._magic):
                at = self._rest.find(self._magic, 1)
                self._rest = self._rest[at:] if at >= 0 else self._rest[-3:]
                if at < 0:
                    return end
            if not self._is_whole():
                return end
            first = int(self.unwrap(np.frombuffer(self._rest, "<u4", 1, 4))[0])
            self._newest, end = first, first + SAMPLES_A_BLOCK
            self._rest = self._rest[self._size :]

    def unwrap(self, samples: Uint32s) -> Int64s:
        """Return 32-bit sample numbers as ones that go on after 2^32: 40 hours at 30 kHz."""
        ahead = (samples.astype(np.int64) - self._newest + 2**31) % 2**32 - 2**31
        unwrapped: Int64s = self._newest + ahead
        return unwrapped

    def _is_whole(self) -> bool:
        """Return True if a block lies at the front, and its size is known."""
        following = self._rest[self._size : self._size + len(self._magic)]
        if not self._size or following != self._magic[: len(following)]:
            self._size = self._find_size()
        return 0 < self._size <= len(self._rest)

    def _find_size(self) -> int:
        """Return where the block after the one at the front begins; 0 where that is not seen."""
        if len(self._rest) < 8:
            return 0
        (first,) = struct.unpack_from("<I", self._rest, 4)
        at = 0
        while (at := self._rest.find(self._magic, at + 1)) >= 0:
            n_bytes = at - 4
            if n_bytes % (2 * SAMPLES_A_BLOCK) == 0 and len(self._rest) >= at + 8:
                (following,) = struct.unpack_from("<I", self._rest, at + 4)
                if (following - first) % 2**32 == SAMPLES_A_BLOCK:
                    return at
        return 0


def channel_of(name: str) -> int:
    """Return the channel number of a native name: `A-010` is 10, `B-000` is 128; -1 for none."""
    port, dash, number = name[:1].upper(), name[1:2], name[2:]
    if not ("A" <= port <= "H" and dash == "-" and number.isdigit()):
        return -1
    return (ord(port) - ord("A")) * CHANNELS_A_PORT + int(number)


def _receive(one: socket.socket) -> bytes | None:
    """Return what came; None where the other side is gone."""
    try:
        return one.recv(RECEIVE_BYTES) or None
    except ConnectionError:
        return None


def _tell(control: socket.socket, *commands: str) -> None:
    control.sendall("".join(f"{command};" for command in commands).encode())


def _ask(control: socket.socket, command: str) -> str:
    """Send a command; the last word of what comes back."""
    _tell(control, command)
    return control.recv(4096).decode("latin1").strip().rpartition(" ")[2].rstrip(";")
