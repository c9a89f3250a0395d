"""Decoders kept by content, one of them current, and the history with reasons.

    bundles/store/<id>/      a bundle, never changed
    bundles/current          symbolic link to one of them
    bundles/history.jsonl    one line for each thing that was done

Every change is made beside and renamed into place under a lock: readers see the old or the new,
and a full disk leaves the old.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from calibration.errors import RegistryError
from export.bundle import SIGNATURE, DecoderBundle, open_bundle
from export.errors import BundleError
from streams.files import remove_litter, write_whole, written_whole

STORE, CURRENT, HISTORY, LOCK = "store", "current", "history.jsonl", ".lock"
SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoder in the registry.

    Attributes:
        id: the bundle's.
        name: the wire's `decoder_id`.
        session: that it was made for.
        parent_id: the decoder that it was made from.
        created_utc: when, ISO 8601.
        r2: per output and dimension, on held-out data; None where it was not verified.
        current: whether it is the one in use.
        path: where it lies.
    """

    id: str
    name: str
    session: str
    parent_id: str | None
    created_utc: str
    r2: dict[str, list[float]] | None
    current: bool
    path: Path


@dataclass(frozen=True, slots=True)
class Event:
    """One line in the history; `r2` as in `Entry`, `who` is user@host."""

    when_utc: str
    what: Literal["add", "promote", "rollback"]
    id: str
    name: str
    why: str
    who: str
    r2: dict[str, list[float]] | None


class Registry:
    """The decoders in a directory.

    Args:
        root: made if it does not exist.

    Raises:
        RegistryError: it cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        try:
            (self.root / STORE).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryError(f"no registry at {self.root}: {error.strerror}") from error
        # One that may only be read is as good as any, and a writer at work will clean by itself.
        with suppress(RegistryError, BlockingIOError), self._lock(fcntl.LOCK_NB):
            pass

    def add(self, path: Path, why: str) -> str:
        """Copy a bundle in; one that is already there is left as it is.

        Returns:
            Its id.

        Raises:
            export.errors.BundleError: it is no verified bundle.
            RegistryError: the copy cannot be written; nothing is left behind.
        """
        bundle = open_bundle(path)
        with self._lock():
            if not self._place(bundle.manifest.id).exists():
                self._copy(bundle)
                self._note("add", bundle, why)
            else:
                self._copy_signature(bundle)
        return bundle.manifest.id

    def promote(self, id_: str, why: str) -> str:
        """Make a decoder the current one; unchanged files are verified first.

        Args:
            id_: the id, or a unique beginning.
            why: for the history.

        Returns:
            The whole id.

        Raises:
            RegistryError: no such decoder, or the disk refuses: the old one stays current.
            export.errors.BundleError: its files were changed.
        """
        with self._lock():
            bundle = open_bundle(self._place(self.find(id_)))
            self._point("promote", bundle, why)
        return bundle.manifest.id

    def rollback(self, why: str) -> str:
        """Make the decoder current that was so before.

        Returns:
            Its id.

        Raises:
            RegistryError: none was.
            export.errors.BundleError: its files were changed.
        """
        with self._lock():
            before = self._line_of_succession()
            if len(before) < 2:
                raise RegistryError(
                    f"{self.root}: no decoder was current before this one: nothing to go back to"
                )
            bundle = open_bundle(self._place(before[-2]))
            self._point("rollback", bundle, why)
        return bundle.manifest.id

    def follow(self, id_: str, why: str) -> bool:
        """Bring `current` to what a daemon now runs: a step back where that was before, else ahead.

        Args:
            id_: the running decoder's whole id.
            why: for the history.

        Returns:
            Whether the registry knows the decoder; nothing is changed where it does not.
        """
        if not self._place(id_).is_dir():
            return False
        if id_ != self.current():
            before = self._line_of_succession()
            _ = self.rollback(why) if before[-2:-1] == [id_] else self.promote(id_, why)
        return True

    def current(self) -> str | None:
        """The current decoder's id; None before the first was promoted."""
        link = self.root / CURRENT
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def entries(self) -> list[Entry]:
        """All decoders, the oldest first.

        Raises:
            export.errors.BundleError: one was changed; it is named.
        """
        found = [self.show(place.name) for place in self._places()]
        return sorted(found, key=lambda entry: (entry.created_utc, entry.id))

    def show(self, id_: str) -> Entry:
        """One decoder, verified.

        Raises:
            RegistryError: no such decoder.
            export.errors.BundleError: its files were changed.
        """
        bundle = open_bundle(self._place(self.find(id_)))
        manifest = bundle.manifest
        return Entry(
            id=manifest.id,
            name=manifest.name,
            session=manifest.session,
            parent_id=manifest.parent_id,
            created_utc=manifest.created_utc.isoformat(),
            r2=_quality(bundle),
            current=manifest.id == self.current(),
            path=bundle.path,
        )

    def history(self) -> list[Event]:
        """Events, the oldest first.

        Raises:
            RegistryError: the file was changed by hand.
        """
        where = self.root / HISTORY
        try:
            lines = where.read_text().splitlines() if where.exists() else []
            return [Event(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise RegistryError(f"{where} cannot be read: {error}; mend or move it") from error

    def find(self, beginning: str) -> str:
        """Find the one decoder whose id begins so, and give its whole id.

        Raises:
            RegistryError: none does, or several.
        """
        ids = [place.name for place in self._places()]
        found = [id_ for id_ in ids if id_.startswith(beginning)]
        if len(beginning) < SHORTEST_ID or len(found) != 1:
            what = "several decoders" if len(found) > 1 else "no decoder"
            have = ", ".join(id_[:12] for id_ in ids) or "none"
            raise RegistryError(
                f"{self.root} has {what} whose id begins with {beginning!r} "
                f"(at least {SHORTEST_ID} letters); it has: {have}"
            )
        return found[0]

    def _places(self) -> list[Path]:
        return sorted(p for p in (self.root / STORE).iterdir() if not p.name.startswith("."))

    def _place(self, id_: str) -> Path:
        return self.root / STORE / id_

    @contextmanager
    def _lock(self, how: int = 0) -> Iterator[None]:
        """Let one writer in at a time, over all processes on this host.

        What a writer that was killed left behind is removed first.

        Args:
            how: `fcntl.LOCK_NB` to wait for nobody.
        """
        try:
            handle = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RegistryError(f"cannot lock {self.root}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | how)
            for folder in (self.root, self.root / STORE):
                remove_litter(folder)
            yield
        finally:
            os.close(handle)

    def _copy(self, bundle: DecoderBundle) -> None:
        place = self._place(bundle.manifest.id)
        try:
            with written_whole(place) as beside:
                shutil.copytree(bundle.path, beside)
                for file in [p for p in beside.rglob("*") if p.is_file()]:
                    file.chmod(0o444)
                open_bundle(beside)
        except (OSError, shutil.Error, BundleError) as error:
            raise RegistryError(f"cannot copy {bundle.path} to {place}: {error}") from error

    def _copy_signature(self, bundle: DecoderBundle) -> None:
        """Take in a signature that was made after the bundle."""
        signed, place = bundle.path / SIGNATURE, self._place(bundle.manifest.id)
        try:
            if signed.exists() and not (place / SIGNATURE).exists():
                write_whole(place / SIGNATURE, signed.read_bytes())
        except OSError as error:
            raise RegistryError(f"cannot copy {signed} to {place}: {error}") from error

    def _point(self, what: Literal["promote", "rollback"], bundle: DecoderBundle, why: str) -> None:
        """Note the change, then let `current` point to the bundle."""
        try:
            with written_whole(self.root / CURRENT) as beside:
                os.symlink(Path(STORE) / bundle.manifest.id, beside)
                self._note(what, bundle, why)
        except OSError as error:
            raise RegistryError(f"cannot change {self.root / CURRENT}: {error}") from error

    def _note(
        self, what: Literal["add", "promote", "rollback"], bundle: DecoderBundle, why: str
    ) -> None:
        event = Event(
            when_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
            what=what,
            id=bundle.manifest.id,
            name=bundle.manifest.name,
            why=why,
            who=_who(),
            r2=_quality(bundle),
        )
        lines = [json.dumps(asdict(held)) for held in (*self.history(), event)]
        try:
            write_whole(self.root / HISTORY, "\n".join(lines) + "\n")
        except OSError as error:
            raise RegistryError(f"cannot write {self.root / HISTORY}: {error}") from error

    def _line_of_succession(self) -> list[str]:
        """Ids that were current, each before the next; a rollback takes the last one away."""
        line: list[str] = []
        for event in self.history():
            if event.what == "promote" and line[-1:] != [event.id]:
                line.append(event.id)
            elif event.what == "rollback":
                line.pop()
        return line


def _who() -> str:
    """User and host; the user's number where it has no name, as in a container."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _quality(bundle: DecoderBundle) -> dict[str, list[float]] | None:
    held = bundle.manifest.verification
    return None if held is None else {name: list(values) for name, values in held.r2.items()}
