"""What every step of the wizard works with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.wizard.config import CalibrateConfig, bundle_path
from calibration.wizard.errors import WizardError
from calibration.wizard.face import Face
from calibration.wizard.progress import Progress
from streams.clock import Clock

COMMAND = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Run:
    """One calibration.

    Attributes:
        config: of the wizard.
        progress: what was done so far, and the folder.
        face: shows and asks.
        clock: LSL's.
        auto: whether nobody is asked.
    """

    config: CalibrateConfig
    progress: Progress
    face: Face
    clock: Clock
    auto: bool

    @property
    def folder(self) -> Path:
        """Where everything of this calibration lies."""
        return self.progress.folder

    @property
    def registry(self) -> Path:
        """Folder of the registry."""
        return Path(self.config.calibration.registry)

    @property
    def session_id(self) -> str:
        """`subject/YYYY-MM-DD/name` of the session that is collected."""
        day = self.progress.started_utc[:10]
        return f"{self.config.calibration.subject}/{day}/{self.folder.name}"

    @property
    def base(self) -> Path:
        """Yesterday's decoder, the same one for the whole calibration."""
        kept = self.progress.note("base")
        if kept is None:
            named = bundle_path(self.config.calibration.base, self.registry).resolve()
            kept = str(named)
            self.progress.keep("base", kept)
        return Path(kept)

    def result(self, step: str) -> dict[str, Any]:
        """What a step came to that must be done by now."""
        result: dict[str, Any] = self.progress.steps[step]
        return result


def start_command(*arguments: str, out: Path, err: Path) -> subprocess.Popen[bytes]:
    """Start `spikeloop ARGUMENTS`, its standard input a pipe that ends with us."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with out.open("wb") as to, err.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=to,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )


def run_command(*arguments: str, out: Path, err: Path) -> str:
    """Run `spikeloop ARGUMENTS`; what it wrote.

    Raises:
        WizardError: it failed, with what it said and its exit code.
    """
    process = start_command(*arguments, out=out, err=err)
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    if code:
        raise WizardError(said(err) or f"`spikeloop {arguments[0]}` ended with {code}", code)
    return out.read_text()


def said(err: Path) -> str:
    """The last line that a command wrote on its standard error."""
    lines = err.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("spikeloop: ") if lines else ""
