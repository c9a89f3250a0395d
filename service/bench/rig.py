"""Starts the loop's processes, and cleans everything up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from service.errors import ServiceError
from streams.clock import MonotonicClock

START_WITHIN_S = 120.0
END_WITHIN_S = 10.0
FINISH_WITHIN_S = 1200.0


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
        """End a process however it takes it."""
        process = self._processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def pids(self) -> dict[str, int]:
        """The process id of each."""
        return {name: process.pid for name, process in self._processes.items()}

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
