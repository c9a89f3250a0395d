"""Starts the loop's processes, listens as a client would, and cleans everything up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from service.errors import ServiceError
from service.loop.percentiles import percentiles
from streams.clock import MonotonicClock
from streams.sockets import DecodeSubscriber

START_WITHIN_S = 60.0
END_WITHIN_S = 10.0


class ProcessFailedError(ServiceError):
    """A process of the rig ended before its time."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Rig:
    """Processes of one measurement, in a folder of their own; all end with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="spikeloop-")
        self.path = Path(self._folder.name)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clock = MonotonicClock()
        self._is_starting = self._is_interrupted = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def start(self, name: str, *arguments: str) -> None:
        """Start `spikeloop ARGUMENTS` as a process of its own, in its own process group."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _RUN, *arguments]
        self._is_starting = True  # an interrupt now would lose the process from our list
        with self._out(name).open("wb") as out, self._err(name).open("wb") as err:
            self._processes[name] = subprocess.Popen(
                command, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        self._is_starting = False
        if self._is_interrupted:
            raise KeyboardInterrupt

    def check(self, name: str) -> None:
        """Raise when the process has ended with a failure.

        Raises:
            ProcessFailedError: with the last lines that it wrote.
        """
        code = self._processes[name].poll()
        if code:
            said = self._err(name).read_text(errors="replace").strip().splitlines()[-5:]
            raise ProcessFailedError(f"{name} ended with code {code}: " + "\n".join(said), code)

    def wait_for_file(self, path: Path, name: str) -> dict[str, Any]:
        """Wait until a process has written a JSON file.

        Raises:
            ProcessFailedError: it ended first, or took too long.
        """
        t_end_s = self._clock.now() + START_WITHIN_S
        while not path.exists():
            self.check(name)
            if self._clock.now() > t_end_s:
                raise ProcessFailedError(f"{name} did not start within {START_WITHIN_S:g} s", 1)
            self._clock.sleep_until(self._clock.now() + 0.02)
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    def end(self, name: str) -> str:
        """End a process in order; what it wrote on its standard output."""
        process = self._processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(END_WITHIN_S)
        self.check(name)
        return self._out(name).read_text()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_interrupted = True
        if not self._is_starting:
            raise KeyboardInterrupt

    def _out(self, name: str) -> Path:
        return self.path / f"{name}.out"

    def _err(self, name: str) -> Path:
        return self.path / f"{name}.err"


_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(slots=True)
class Listener:
    """Receives what the daemon publishes, and keeps what a measurement needs.

    Latencies count from the beat on that the settle time was fixed at.
    """

    decodes: list[dict[str, Any]] = field(default_factory=list)
    received_s: list[float] = field(default_factory=list)
    heartbeat: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    bare_timer: dict[str, int] = field(default_factory=dict)

    def listen(
        self,
        endpoint: str,
        seconds: float,
        each: Callable[[dict[str, Any] | None], None] = lambda decode: None,
    ) -> None:
        """Listen for `seconds` from the first decode on, then wait for the settle time if need be.

        Args:
            endpoint: the daemon's decodes.
            seconds: how long.
            each: called with each decode, and with None when none came for a while.
        """
        clock = MonotonicClock()
        subscriber = DecodeSubscriber(endpoint, ("decode", "heartbeat", "event"))
        t_end_s: float | None = None
        while t_end_s is None or clock.now() < t_end_s:
            received = subscriber.receive(0.2)
            now_s = clock.now()
            each(self._take(received, now_s))
            if t_end_s is None and self.decodes:
                t_end_s = now_s + seconds
        subscriber.close()

    def _take(
        self, received: tuple[str, dict[str, Any]] | None, now_s: float
    ) -> dict[str, Any] | None:
        if received is None:
            return None
        topic, message = received
        if topic == "decode":
            self.decodes.append(message)
            self.received_s.append(now_s)
            return message
        if topic == "heartbeat":
            self.heartbeat = message
        else:
            self.events.append(message)
        return None

    def summary(self) -> dict[str, Any]:
        """The fields of the loop that demo and bench share."""
        last, beat = self.decodes[-1], self.heartbeat
        skipped_before = self.decodes[0]["beats_skipped"]
        late = sum(decode["late"] for decode in self.decodes)
        skipped = last["beats_skipped"] - skipped_before
        settled = [
            (decode, t_s)
            for decode, t_s in zip(self.decodes, self.received_s, strict=True)
            if decode["beat"] >= beat["settled_from_beat"]
        ]
        return {
            "beats": last["beat"] - self.decodes[0]["beat"] + 1,
            "missed_beats": late + skipped,
            "late_beats": late,
            "skipped_beats": skipped,
            "bare_timer_late": self.bare_timer["missed"],
            "decode_ms": percentiles([1e3 * (d["t_done"] - d["t_cut"]) for d, _ in settled]),
            "end_to_end_ms": percentiles([1e3 * (t_s - d["t_window"]) for d, t_s in settled]),
            "spikes_in": last["spikes_in"],
            "spikes_late": last["spikes_late"],
            "spikes_dropped": last["spikes_dropped"],
            "fates": beat["fates"],
            "spikes_pending": beat["spikes_pending"],
            "spikes_lost": beat["spikes_lost"],
            "messages_lost": last["seq"] - self.decodes[0]["seq"] + 1 - len(self.decodes),
            "settle_ms": beat["settle_ms"],
            "hop_ms": beat["hop_ms"],
            "realtime": [one["detail"] for one in self.events if one["event"] == "realtime"],
            "backend": last["backend"],
            "decoder_id": last["decoder_id"],
        }
