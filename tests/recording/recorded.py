"""Run `spikeloop redecode` as its users do."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.telemetry.recording.frames import runs_in
from tests.system.running import Daemon, wait_until

_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"


def only_run(folder: Path) -> Path:
    """The one run that was recorded in a folder."""
    (run,) = runs_in(folder)
    return run


def redecoded(run: Path, *arguments: str, code: int = 0, first: str = "") -> dict[str, Any]:
    """Decode a run again in a process of its own; its report."""
    command = [sys.executable, "-c", first + _RUN, "redecode", str(run), "--json", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def recorder_of(daemon: Daemon) -> int:
    """The process id of a daemon's recorder."""

    def find() -> int:
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if (
                    parent == str(daemon.announced["pid"])
                    and "recorder_process" in (process / "cmdline").read_text()
                ):
                    return int(process.name)
        return 0

    return wait_until(find)
