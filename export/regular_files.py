"""A bundle's files, opened so that none of them can keep us waiting."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from export.errors import BundleError


def damaged(where: Path, why: object) -> BundleError:
    """Return the error of a file that is not what was exported."""
    return BundleError(f"{where}: {why}; copy the bundle again from its source")


@contextmanager
def opened(where: Path) -> Iterator[BufferedReader]:
    """Open a regular file: a pipe would keep us waiting for ever, a device would never end.

    Raises:
        BundleError: it is another kind of file.
        OSError: it cannot be opened.
    """
    with open(os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise damaged(where, "no regular file")
        yield file
