"""State shared by the wizard's steps, saved after each, and the lock that keeps others out."""

from __future__ import annotations

import fcntl
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from calibration.errors import WizardError
from calibration.registry import CURRENT
from calibration.wizard.behavior import Pace
from calibration.wizard.config import CalibrateConfig
from calibration.wizard.meant import Driven
from calibration.wizard.results import Result, StepResults
from calibration.wizard.ui import Page, WizardUI
from export.shipped import bundle_path
from streams.clock import Clock
from streams.errors import UnreachableError
from streams.files import write_whole
from streams.wire.client import DaemonClient

FILE, LOCK = "progress.json", ".lock"
SCHEMA = 1
# A daemon that loads a decoder answers late.
ANSWERS_WITHIN_S = 5.0


class Notes(Result):
    """Facts that a step under way must not lose.

    Attributes:
        base: yesterday's decoder.
        recordings: file names, in order.
        collect_s: time spent on it.
        driven: file names, a block each.
        drove: begin and end, seconds on LSL's clock, of each time in which the subject drove while
            trials were collected; no end while it does.
        pace: the subject's, before it drove: top speed, and the distance within which it slows.
        is_driving: a decoder that was not accepted yet may be in service.
        max_speed_before: the daemon's bound on speed, where driving has put its own in its place.
    """

    base: str | None = None
    recordings: tuple[str, ...] = ()
    collect_s: float = 0.0
    driven: tuple[str, ...] = ()
    drove: tuple[tuple[float, float | None], ...] = ()
    pace: tuple[float, float] | None = None
    is_driving: bool = False
    max_speed_before: float | None = None


class Progress:
    """The steps' results so far; owns the folder until it is closed.

    Args:
        folder: the calibration's; made if needed.
        resume: whether what is there is to be gone on with.

    Raises:
        WizardError: another wizard works there, there is something that was not asked for, or the
            disk refuses.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        self.results, self.notes = StepResults(), Notes()
        self.started_utc = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # a person's data
            # The kernel lets go of the lock when the process dies, however it dies.
            self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as err:
            raise WizardError(f"cannot work in {folder}: {err.strerror}") from err
        self._take_lock()
        try:
            self._load(resume)
        except WizardError:
            self.close()
            raise

    def done(self, step: str, result: Result) -> None:
        """Save a step's result; it is on the disk when this returns."""
        self.results = self.results.model_copy(update={step: result})
        self._save()

    def forget(self, steps: tuple[str, ...]) -> None:
        """Have steps done again; their files stay."""
        # A step that was forgotten must be absent from the file, not null.
        kept = self.results.model_fields_set - set(steps)
        self.results = StepResults(**{step: getattr(self.results, step) for step in kept})
        self._save()

    def keep(self, **notes: Any) -> None:
        """Change and save the notes."""
        self.notes = self.notes.model_copy(update=notes)
        self._save()

    def close(self) -> None:
        """Let others in."""
        os.close(self._lock)

    def _save(self) -> None:
        """Write everything, all or nothing.

        Raises:
            WizardError: the disk refuses.
        """
        content = {
            "schema": SCHEMA,
            "started_utc": self.started_utc,
            "steps": self.results.as_json(),
            "notes": self.notes.as_json(),
        }
        try:
            write_whole(self.folder / FILE, json.dumps(content, indent=1), private=True)
        except OSError as err:
            raise WizardError(
                f"cannot save progress in {self.folder}: {err.strerror}; free some space and go "
                "on with --resume"
            ) from err

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode().strip() or "unknown"
            os.close(self._lock)
            raise WizardError(
                f"another wizard (process {holder}) works in {self.folder}; end it first, or "
                "choose another --folder"
            ) from None
        # So that a second wizard can say who works here.
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _load(self, resume: bool) -> None:
        path = self.folder / FILE
        if not path.exists():
            if resume:
                raise WizardError(f"nothing to resume in {self.folder}; start without --resume")
            return
        if not resume:
            raise WizardError(
                f"{self.folder} holds a calibration already; go on with it by --resume, or choose "
                "another --folder"
            )
        try:
            content = json.loads(path.read_text())
            self.started_utc = str(content["started_utc"])
            self.results = StepResults.model_validate(content["steps"])
            self.notes = Notes.model_validate(content["notes"])
        except (OSError, ValueError, LookupError, TypeError) as err:
            raise WizardError(f"{path} cannot be read: {err}; choose another --folder") from err


@dataclass(frozen=True)
class CalibrationRun:
    """One calibration.

    Attributes:
        config: the wizard's.
        progress: results so far, and the folder.
        ui: shows pages and asks.
        clock: LSL's.
        auto: whether nobody is asked.
        command: starts `spikeloop`, whose arguments follow.
    """

    config: CalibrateConfig
    progress: Progress
    ui: WizardUI
    clock: Clock
    auto: bool
    command: tuple[str, ...] = ("spikeloop",)

    @property
    def folder(self) -> Path:
        """This calibration's folder."""
        return self.progress.folder

    @property
    def results(self) -> StepResults:
        """The steps' results so far."""
        return self.progress.results

    @property
    def registry(self) -> Path:
        """The registry's folder."""
        return Path(self.config.calibration.registry)

    @property
    def signing_key(self) -> Path | None:
        """The key that signs decoders; None for none."""
        return Path(key) if (key := self.config.sign.key) else None

    @property
    def session_id(self) -> str:
        """The collected session's id, `subject/YYYY-MM-DD/name`."""
        day = self.progress.started_utc[:10]
        return f"{self.config.calibration.subject}/{day}/{self.folder.name}"

    @property
    def base(self) -> Path:
        """Yesterday's decoder, the same one for the whole calibration."""
        # Kept, as the registry's current decoder changes once today's is promoted.
        if self.progress.notes.base is None:
            named = self.config.calibration.base or str(self.registry / CURRENT)
            self.progress.keep(base=str(bundle_path(named).resolve()))
        return Path(self.progress.notes.base or "")

    @property
    def drove(self) -> Driven | None:
        """What the subject drove while trials were collected; None where it did not."""
        notes, config = self.progress.notes, self.config
        if not notes.drove or notes.pace is None:
            return None
        spans_s = [
            (begin_s, math.inf if end_s is None else end_s) for begin_s, end_s in notes.drove
        ]
        pace, on_target = Pace(*notes.pace), config.drive.on_target
        return Driven(spans_s, pace, config.behavior.body, on_target)

    @property
    def recordings(self) -> list[Path]:
        """Recordings so far, in order."""
        paths = [self.folder / name for name in self.progress.notes.recordings]
        return [path for path in paths if path.is_file()]

    @cached_property
    def daemon(self) -> DaemonClient | None:
        """The running daemon's client; None where none is configured."""
        deploy = self.config.deploy
        keys = Path(deploy.keys) if deploy.keys else None
        return DaemonClient(deploy.control, keys, ANSWERS_WITHIN_S) if deploy.control else None

    def mark(self, text: str) -> None:
        """Note in the daemon's record which block is on; nothing happens without a daemon."""
        if self.daemon is not None:
            # The mark is a note; collecting goes on without a daemon.
            with suppress(UnreachableError):
                self.daemon.ask("mark", text=text)

    def show(self, page: Page, wait_s: float = 0.0) -> None:
        """Show a page that asks nothing, for so long."""
        self.ui.ask(page, (), wait_s=wait_s)
