"""Spikes of the Open Ephys GUI, by its plugin ZMQ Interface (1.0, for GUI 1.0).

The plugin publishes messages of three frames; the second is JSON. In each of the GUI's buffers it
sends the spikes first and then a `data` message for each channel that is ticked: when that comes,
the buffer is whole. It keeps a list of its clients by the heartbeats that they send to the next
port.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zmq

from streams.bridges.blocks import Block
from streams.clock import Clock

HEARTBEAT_EVERY_S = 2.0
MESSAGES_MOST = 2_000
"""In one block; what is left waits for the next."""
WAVEFORM_SAMPLES = 40
"""A spike is sent with its whole waveform, so perhaps a buffer later: this many unless told."""


class _NumberlessError(ValueError):
    """An electrode's name does not tell its channel."""


class OpenEphysSource:
    """Reads the plugin's sockets.

    Args:
        clock: LSL's.
        host: where the GUI runs.
        port: the plugin's data port; heartbeats go to the next one.
        stream: the stream that is read; "" for any.
        electrodes: the channel number of an electrode by its name; others take the number that
            ends their name.
        rate_hz: of the stream, until a `data` message tells it.
    """

    def __init__(
        self,
        clock: Clock,
        host: str = "127.0.0.1",
        port: int = 5556,
        stream: str = "",
        electrodes: Mapping[str, int] | None = None,
        rate_hz: float = 30_000.0,
    ) -> None:
        self._clock, self._stream, self._rate_hz = clock, stream, rate_hz
        self.warnings: list[str] = []
        self._electrodes = dict(electrodes or {})
        self._numbers = {number: name for name, number in self._electrodes.items()}
        self._data: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._data.connect(f"tcp://{host}:{port}")
        self._data.subscribe("")
        self._beat: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
        self._beat.setsockopt(zmq.REQ_RELAXED, 1)  # no answer is no reason to wait
        self._beat.setsockopt(zmq.REQ_CORRELATE, 1)
        self._beat.connect(f"tcp://{host}:{port + 1}")
        self._hello = json.dumps(
            {"application": "spikeloop", "uuid": str(uuid.uuid4()), "type": "heartbeat"}
        ).encode()
        self._beat_due_s = 0.0
        self._warned: set[str] = set()
        self._message_num: int | None = None
        self._waveform = WAVEFORM_SAMPLES

    def read(self, timeout_s: float) -> Sequence[Block]:
        """Wait for messages, and return all that came as one block."""
        self._send_heartbeat()
        if not self._data.poll(int(timeout_s * 1e3)):
            return ()
        gathered = _Gathered()
        for _ in range(MESSAGES_MOST):
            self._take(self._data.recv_multipart(), gathered)
            if gathered.is_restart or not self._data.poll(0):
                break
        return (gathered.block(self._rate_hz),)

    def close(self) -> None:
        """Hang up."""
        self._data.close(0)
        self._beat.close(0)

    def _send_heartbeat(self) -> None:
        now_s = self._clock.now()
        if now_s >= self._beat_due_s:
            self._beat_due_s = now_s + HEARTBEAT_EVERY_S
            self._beat.send(self._hello)
        if self._beat.poll(0):
            self._beat.recv()

    def _take(self, frames: Sequence[bytes], gathered: _Gathered) -> None:
        try:
            said = json.loads(frames[1])
            number, kind = int(said["message_num"]), said["type"]
            told = said["spike" if kind == "spike" else "content"]
            sample, stream = int(told["sample_num"]), told["stream"]
            self._count(number, gathered)
            if self._stream not in ("", stream):
                return
            if kind == "spike":
                channel = self._channel(told["electrode"])
                self._waveform = max(self._waveform, int(told["num_samples"]))
                gathered.spikes.append((sample, channel, int(told["sorted_id"])))
                gathered.newest = max(gathered.newest, sample)
                gathered.arrived_s = self._clock.now()
            elif kind == "data":
                self._end_buffer(sample + int(told["num_samples"]), told["sample_rate"], gathered)
        except (IndexError, KeyError, TypeError, ValueError):
            gathered.n_refused += 1

    def _end_buffer(self, end: int, rate_hz: Any, gathered: _Gathered) -> None:
        if float(rate_hz) != self._rate_hz:
            self._rate_hz = float(rate_hz)
            gathered.is_restart = True
        gathered.newest = max(gathered.newest, end)
        gathered.arrived_s = self._clock.now()
        gathered.complete_until = end - 1 - self._waveform

    def _count(self, number: int, gathered: _Gathered) -> None:
        if self._message_num is not None:
            if number <= self._message_num:
                gathered.is_restart = True
            gathered.n_lost += max(0, number - self._message_num - 1)
        self._message_num = number

    def _channel(self, electrode: str) -> int:
        if electrode not in self._electrodes:
            match = re.search(r"(\d+)$", electrode)
            number = int(match[1]) if match else -1
            if number < 0 or number in self._numbers:
                self._warn(electrode, self._numbers.get(number))
                raise _NumberlessError(electrode)
            self._electrodes[electrode] = number
            self._numbers[number] = electrode
        return self._electrodes[electrode]

    def _warn(self, electrode: str, taken_by: str | None) -> None:
        why = f"its number is that of {taken_by!r}" if taken_by else "it ends with no number"
        warning = (
            f"spikes of electrode {electrode!r} are left out, as {why}: give it one with "
            f"--electrode '{electrode}=NUMBER', the one that the decoder was trained with"
        )
        if warning not in self._warned:
            self._warned.add(warning)
            self.warnings.append(warning)


class _Gathered:
    """The messages of one block, in samples."""

    def __init__(self) -> None:
        self.spikes: list[tuple[int, int, int]] = []
        self.newest, self.arrived_s = -1, 0.0
        self.complete_until: int | None = None
        self.n_lost = self.n_refused = 0
        self.is_restart = False

    def block(self, rate_hz: float) -> Block:
        spikes = np.array(self.spikes, np.int64).reshape(-1, 3)
        until = self.complete_until
        return Block(
            t_s=spikes[:, 0] / rate_hz,
            ids=spikes[:, 1:].astype(np.int32),
            device_s=None if self.newest < 0 else self.newest / rate_hz,
            arrived_s=self.arrived_s,
            complete_until_s=None if until is None else until / rate_hz,
            n_lost=self.n_lost,
            n_refused=self.n_refused,
            is_restart=self.is_restart,
        )
