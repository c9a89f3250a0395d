"""Run `spikeloop redecode` as its users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.telemetry.recording.frames import runs_in

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
