"""A folder for what libraries keep between runs, where the user has no home that can be written."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def provide_cache_folder() -> None:
    """Point `XDG_CACHE_HOME` to a folder of the user's own if the usual one cannot be written.

    In a container, or as a service, a user may have no home, no name, or a home that is read-only.
    Libraries that keep compiled code or schemas there (numba, pynwb, our own builds) then fail when
    they are imported. Does nothing where a cache folder can be written, or nothing can.
    """
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(usual) and _can_be_written(usual):
        return
    try:
        folder = _temporary_folder()
    except OSError:
        return
    os.environ["XDG_CACHE_HOME"] = folder
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))


def _can_be_written(folder: str) -> bool:
    """Return True if files can be made in the folder, which is made if need be."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _temporary_folder() -> str:
    """Make or find this user's folder among the temporary files.

    It is found again by the next command. What it holds is loaded as code, so that one that others
    may write to, or that somebody else has put there, is not used.
    """
    path = Path(tempfile.gettempdir()) / f"spikeloop-cache-{os.getuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        held = path.lstat()
        is_ours = stat.S_ISDIR(held.st_mode) and held.st_uid == os.getuid()
        if not is_ours or held.st_mode & 0o077:
            return tempfile.mkdtemp(prefix="spikeloop-cache-")
    return str(path)
