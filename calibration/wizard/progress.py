"""What a calibration has come to, saved after every step, and the lock that keeps others out."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration.wizard.errors import WizardError
from streams.files import write_whole

FILE, LOCK = "progress.json", ".lock"
SCHEMA = 1


class Progress:
    """The results of the steps done so far; owns the folder until it is closed.

    Args:
        folder: of the calibration; made if needed.
        resume: whether what is there is to be gone on with.

    Raises:
        WizardError: another wizard works there, there is something that was not asked for, or the
            disk refuses.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as err:
            raise WizardError(f"cannot work in {folder}: {err.strerror}") from err
        self._hold()
        try:
            self._content = self._load(resume)
        except WizardError:
            self.close()
            raise

    @property
    def steps(self) -> dict[str, Any]:
        """Result of each step that is done."""
        steps: dict[str, Any] = self._content["steps"]
        return steps

    @property
    def started_utc(self) -> str:
        """When the calibration began, ISO 8601."""
        return str(self._content["started_utc"])

    def note(self, name: str) -> Any:
        """What was kept under a name outside the steps' results; None if nothing."""
        return self._content["notes"].get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep something that a step under way must not lose."""
        self._content["notes"][name] = value
        self.save()

    def done(self, step: str, result: dict[str, Any]) -> None:
        """A step is done: what came of it is on the disk when this returns."""
        self._content["steps"][step] = result
        self.save()

    def forget(self, steps: list[str]) -> None:
        """Steps are to be done again; their files stay."""
        for step in steps:
            self._content["steps"].pop(step, None)
        self.save()

    def save(self) -> None:
        """Write everything, all or nothing.

        Raises:
            WizardError: the disk refuses.
        """
        try:
            write_whole(self.folder / FILE, json.dumps(self._content, indent=1))
        except OSError as err:
            raise WizardError(
                f"cannot save progress in {self.folder}: {err.strerror}; free some space and go "
                "on with --resume"
            ) from err

    def close(self) -> None:
        """Let others in."""
        os.close(self._lock)

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode().strip() or "unknown"
            os.close(self._lock)
            raise WizardError(
                f"another wizard (process {holder}) works in {self.folder}; end it first, or "
                "choose another --folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _load(self, resume: bool) -> dict[str, Any]:
        where = self.folder / FILE
        if not where.exists():
            if resume:
                raise WizardError(f"nothing to resume in {self.folder}; start without --resume")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            return {"schema": SCHEMA, "started_utc": now, "steps": {}, "notes": {}}
        if not resume:
            raise WizardError(
                f"{self.folder} holds a calibration already; go on with it by --resume, or choose "
                "another --folder"
            )
        try:
            content: dict[str, Any] = json.loads(where.read_text())
        except (OSError, ValueError) as err:
            raise WizardError(f"{where} cannot be read: {err}; choose another --folder") from err
        return content
