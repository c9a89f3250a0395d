"""Receive a bundle from another machine, in checksummed chunks."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from export.bundle import BUNDLE_BYTES_AT_MOST, FILES_AT_MOST
from export.sending import CHUNK_BYTES
from service.errors import ServiceError

NAME_AT_MOST = 200
HALF = ".part"
_HALF_NAME, _WHOLE_NAME = re.compile(r"[0-9a-f]{12}\.part"), re.compile(r"[0-9a-f]{12}")
WHOLE_KEPT = 4
"""Bundles received that stay beside those in use: a rollback by hand may want the last ones."""
_PLAIN = "[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"^(report/|engines/{_PLAIN}/)?{_PLAIN}$")


class TransferError(ServiceError):
    """A transfer is refused; its files are removed."""


@dataclass(slots=True)
class _Incoming:
    folder: Path
    sizes: dict[str, int]
    lock: int
    arrived: dict[str, int] = field(default_factory=dict)


class Transfers:
    """Receives bundles, one at a time.

    Args:
        root: folder for incoming bundles; made when first needed.
        in_service: the bundle that the daemon starts with; it stays, wherever it lies.
        in_use: returns where the decoders lie that run; of this run's bundles they and the last
            ones stay.
    """

    def __init__(
        self,
        root: Path,
        in_service: Path | None = None,
        in_use: Callable[[], Iterable[Path]] = tuple,
    ) -> None:
        self._root, self._in_use = root, in_use
        self._clean(in_service)
        self._incoming: dict[str, _Incoming] = {}
        self._received: list[_Incoming] = []

    def begin(self, sizes: dict[str, int]) -> str:
        """Begin a transfer of files with these sizes and return its id; drop one under way.

        Raises:
            TransferError: a name is none of a bundle's, or it is too large.
        """
        if len(sizes) > FILES_AT_MOST:
            raise TransferError(f"over {FILES_AT_MOST} files are no bundle")
        for name, size in sizes.items():
            if (
                not _NAME.fullmatch(name)
                or len(name) > NAME_AT_MOST
                or type(size) is not int
                or size < 0
            ):
                raise TransferError(f"{name!r} of {size!r} bytes is no file of a bundle")
        if sum(sizes.values()) > BUNDLE_BYTES_AT_MOST:
            raise TransferError(f"over {BUNDLE_BYTES_AT_MOST} bytes are no bundle")
        for transfer in list(self._incoming):
            self._drop(transfer)
        transfer = uuid.uuid4().hex[:12]
        folder = self._root / f"{transfer}{HALF}"
        try:
            folder.mkdir(parents=True)
            lock = _locked(folder)
        except OSError as err:
            shutil.rmtree(folder, ignore_errors=True)
            raise TransferError(f"cannot make {folder}: {err.strerror}") from err
        self._incoming[transfer] = _Incoming(folder, sizes, lock)
        return transfer

    def chunk(self, transfer: str, name: str, offset: int, sha256: str, held: bytes) -> int:
        """Append a chunk; return how many bytes are here now.

        Raises:
            TransferError: unknown transfer or file, out of order, damaged, or no room on the disk.
        """
        incoming = self._known(transfer)
        if name not in incoming.sizes:  # never a path of the sender's choosing
            raise self._refused(transfer, f"{name!r} was not announced")
        arrived = incoming.arrived.get(name, 0)
        room = min(CHUNK_BYTES, incoming.sizes.get(name, 0) - arrived)
        if offset != arrived or len(held) > room:
            raise self._refused(transfer, f"chunk {offset} of {name!r} does not fit in")
        if hashlib.sha256(held).hexdigest() != sha256:
            raise self._refused(transfer, f"chunk {offset} of {name!r} was damaged on its way")
        path = incoming.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(held)
        except OSError as err:
            raise self._refused(transfer, f"cannot write {path}: {err.strerror}") from err
        incoming.arrived[name] = arrived + len(held)
        return incoming.arrived[name]

    def finish(self, transfer: str) -> Path:
        """Return a complete transfer's folder.

        Raises:
            TransferError: something is missing.
        """
        incoming = self._known(transfer)
        for name, size in incoming.sizes.items():
            if incoming.arrived.get(name, 0) != size:
                raise self._refused(transfer, f"{name!r} is incomplete")
        whole = self._root / transfer
        try:
            incoming.folder.rename(whole)
        except OSError as err:
            raise self._refused(transfer, f"cannot make {whole}: {err.strerror}") from err
        del self._incoming[transfer]
        # It may come into service: as long as this process lives, no other one removes it.
        incoming.folder = whole
        self._received.append(incoming)
        self._forget_old()
        return whole

    def _forget_old(self) -> None:
        """Remove what nobody needs any more: a disk, and descriptors, are soon used up."""
        in_use = {folder.resolve() for folder in self._in_use()}
        for old in self._received[:-WHOLE_KEPT]:
            if old.folder.resolve() not in in_use:
                self._received.remove(old)
                _remove(old)

    def _known(self, transfer: str) -> _Incoming:
        if transfer not in self._incoming:
            raise TransferError(f"no transfer {transfer!r} is under way; begin again")
        return self._incoming[transfer]

    def _refused(self, transfer: str, why: str) -> TransferError:
        self._drop(transfer)
        return TransferError(f"transfer refused: {why}; send the bundle again")

    def _drop(self, transfer: str) -> None:
        _remove(self._incoming.pop(transfer))

    def _clean(self, in_service: Path | None) -> None:
        """Remove what earlier runs received: halves, and all but the last whole bundles."""
        for folder in self._root.glob(f"*{HALF}"):
            if _HALF_NAME.fullmatch(folder.name):
                _remove_unless_held(folder)
        whole = [path for path in self._root.glob("*") if _WHOLE_NAME.fullmatch(path.name)]
        with suppress(OSError):  # another daemon may be cleaning, too
            whole.sort(key=lambda path: path.stat().st_mtime_ns)
        for folder in whole[:-WHOLE_KEPT]:
            if in_service is None or folder.resolve() != in_service.resolve():
                _remove_unless_held(folder)


def _remove(incoming: _Incoming) -> None:
    shutil.rmtree(incoming.folder, ignore_errors=True)
    os.close(incoming.lock)


def _remove_unless_held(folder: Path) -> None:
    """Remove a folder, but for one that a living daemon receives or has received."""
    if not folder.is_dir() or folder.is_symlink():
        return
    with suppress(OSError):
        lock = _locked(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: Path) -> int:
    """Return the descriptor by which a folder is held.

    Raises:
        OSError: somebody else holds it, or its file system knows no locks.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
