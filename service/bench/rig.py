"""Starts the loop's processes and threads, and cleans everything up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any, Self

from service.errors import ServiceError
from service.signals import ending_signals
from streams.clock import MonotonicClock

START_WITHIN_S = 120.0
END_WITHIN_S = 10.0
FINISH_WITHIN_S = 1200.0
SERVED_HERE = {
    "input.wait_s": 60.0,
    "output.decode": "tcp://127.0.0.1:*",
    "output.control": "tcp://127.0.0.1:*",
    # As a rig would ask; where it is not permitted the daemon says so and goes on.
    "realtime.priority": 50,
    "record.enabled": False,
}


class ProcessFailedError(ServiceError):
    """A process of the rig ended before its time."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Rig:
    """A measurement's processes, in their own folder; all end with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="spikeloop-")
        self.path = Path(self._folder.name)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._working: dict[str, int] = {}
        self._clock = MonotonicClock()
        self._is_starting = self._is_interrupted = False

    def __enter__(self) -> Self:
        for number in ending_signals():
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number in ending_signals():
            signal.signal(number, signal.SIG_IGN)
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            _wait(process)
        self._folder.cleanup()

    def start(self, name: str, *arguments: str) -> None:
        """Start `spikeloop ARGUMENTS` as a process of its own, in its own process group."""
        self.run(name, [sys.executable, "-c", _RUN, *arguments])

    def run(self, name: str, command: list[str]) -> None:
        """Start a command likewise.

        Args:
            name: that it is known by from here on.
            command: with its arguments.
        """
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._is_starting = True  # an interrupt now would lose the process from our list
        with self._out(name).open("wb") as out, self._err(name).open("wb") as err:
            self._processes[name] = subprocess.Popen(
                command, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        self._is_starting = False
        if self._is_interrupted:
            raise KeyboardInterrupt

    def stop(self, name: str) -> None:
        """End a process, and those that it has started, however it takes it."""
        process = self._processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        _wait(process)

    def serve(self, name: str, stream: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Start a daemon that decodes a stream, and return its endpoints by kind.

        Args:
            name: of the process.
            stream: name of the LSL stream.
            config: what else its config says, as `SECTION.KEY`.
        """
        file, announced = self.path / f"{name}.toml", self.path / f"{name}.json"
        names = {"input.name": stream, "output.lsl_name": f"{stream}-decodes"}
        write_config(file, {**SERVED_HERE, **names, **config})
        self.start(name, "serve", str(file), "--log", "json", "--announce", str(announced))
        return self.wait_for_file(announced, name)

    def pids(self) -> dict[str, int]:
        """The id of each, or of the process that it announced as doing its work."""
        started = {name: process.pid for name, process in self._processes.items()}
        return started | {name: pid for name, pid in self._working.items() if name in started}

    def check(self, name: str) -> None:
        """Raise when the process has ended with a failure.

        Raises:
            ProcessFailedError: with the last lines that it wrote.
        """
        code = self._processes[name].poll()
        if code:
            said = self._err(name).read_text(errors="replace").strip().splitlines()[-5:]
            raise ProcessFailedError(f"{name} ended with code {code}: " + "\n".join(said), code)

    def check_all(self) -> None:
        """Raise when any process has ended with a failure; the daemon's may follow another's.

        Raises:
            ProcessFailedError: see `check`.
        """
        for name in sorted(self._processes, key=lambda name: name == "daemon"):
            self.check(name)

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
        if "pid" in content:
            self._working[name] = content["pid"]
        return content

    def finish(self, name: str, within_s: float = FINISH_WITHIN_S) -> str:
        """Wait for a process to end by itself; what it wrote on its standard output.

        Raises:
            ProcessFailedError: it failed, or took too long.
        """
        try:
            self._processes[name].wait(within_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailedError(f"{name} did not end within {within_s:g} s", 1) from None
        self.check(name)
        return self._out(name).read_text()

    def end(self, name: str) -> str:
        """End a process in order; what it wrote on its standard output."""
        self._processes[name].terminate()
        return self.finish(name, END_WITHIN_S)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_interrupted = True
        if not self._is_starting:
            raise KeyboardInterrupt

    def _out(self, name: str) -> Path:
        return self.path / f"{name}.out"

    def _err(self, name: str) -> Path:
        return self.path / f"{name}.err"


@contextmanager
def beside(work: Callable[[Event], object]) -> Iterator[None]:
    """Run work in a thread of its own; the event that it is given tells it to end."""
    ending = Event()
    thread = Thread(target=work, args=(ending,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def write_config(path: Path, keys: Mapping[str, Any]) -> None:
    """Write TOML: `SECTION.KEY` and value, a line each."""
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in keys.items()]
    path.write_text("".join(lines))


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was told to end; one that does not is killed with its own."""
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"
