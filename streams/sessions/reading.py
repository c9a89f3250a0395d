"""Read any known kind of recording as a `Session`."""

from __future__ import annotations

import os
from pathlib import Path

from streams.sessions.choice import EVERYTHING, SessionChoice
from streams.sessions.falcon import falcon_task, read_falcon
from streams.sessions.nwb.reader import read_nwb
from streams.sessions.session import Session
from streams.sessions.torch_brain import is_torch_brain, read_torch_brain


def read_session(path: str | os.PathLike[str], choice: SessionChoice = EVERYTHING) -> Session:
    """Read a recording: units, behaviour, trials and where it came from.

    A file `.h5` or `.hdf5` that is not NWB is read as torch_brain's; what follows is for NWB.
    Behaviour is what `choice` names, or else every numeric series under `processing` and
    `acquisition`, directly or inside a container; neural and image series are left out, and what
    was left out or mended is in `provenance["skipped"]`. Times count from the session's first
    sample, see `begin`.

    Args:
        path: the file's.
        choice: its parts to read.

    Raises:
        SessionError: the file is missing, is none that can be read, or lacks what was chosen; the
            text lists what it has.
    """
    path = Path(path)
    if choice.falcon:
        return read_falcon(path, falcon_task(choice.falcon))
    if is_torch_brain(path):
        return read_torch_brain(path, choice)
    return read_nwb(path, choice)
