"""Files and folders that appear whole or not at all, also when the power fails."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME_KEPT = 40
"""Letters kept for the name beside: a file system allows 255."""
PRIVATE = 0o600
"""Mode of files with a subject's data: readable by their owner alone."""
_BESIDE = re.compile(rf"\..{{1,{NAME_KEPT}}}\.[0-9a-f]{{8}}\.part", re.DOTALL)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Hand out a free path beside; what is written there gets `path` when the block ends.

    Its bytes are on the disk before it has its name. A file replaces an older one, a
    folder only an empty one. If the block raises, nothing is left behind.

    Raises:
        OSError: the disk refuses.
    """
    beside = path.with_name(f".{path.name[:NAME_KEPT]}.{secrets.token_hex(4)}.part")
    try:
        yield beside
        if not beside.is_symlink():
            for one in (*beside.rglob("*"), beside):
                _sync(one)
        # Only now: a name must never point at bytes that a power cut could lose.
        os.replace(beside, path)
        # The name itself lies in the folder.
        _sync(path.parent)
    finally:
        with suppress(OSError):  # a disk that is read-only must tell of that, not of the cleaning
            if beside.is_dir() and not beside.is_symlink():
                shutil.rmtree(beside, ignore_errors=True)
            else:
                beside.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file, text as UTF-8; it replaces an older one.

    Args:
        path: the file's.
        content: all of it.
        private: nobody but its owner may read it.

    Raises:
        OSError: the disk refuses; the older file is as it was.
    """
    with written_whole(path) as beside:
        if private:
            make_private(beside)
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, to be written by somebody else.

    Raises:
        OSError: it exists, or the disk refuses.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))


def remove_litter(folder: Path) -> None:
    """Remove what `written_whole` left in a folder when its process was killed.

    Whoever calls it knows that nobody writes there. What may not be removed stays.
    """
    for beside in folder.glob(".*.part"):
        if not _BESIDE.fullmatch(beside.name):
            continue
        with suppress(OSError):
            if beside.is_dir() and not beside.is_symlink():
                shutil.rmtree(beside)
            else:
                beside.unlink()


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
