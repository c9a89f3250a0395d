"""A process that opens files which native code reads: it may die of one, and its parent sees that.

It reads `NAME LENGTH` lines, each followed by so many bytes, and answers each by a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_AT_MOST = 3 * 2**30
"""Address space: libraries alone map over a gigabyte."""
IN_MEMORY = "/dev/shm"


def in_memory() -> str | None:
    """Where files cost no disk's time; None where there is no such place."""
    return IN_MEMORY if os.path.isdir(IN_MEMORY) else None


def xdf(path: Path) -> None:
    """Read a recording, and make a session of it."""
    from streams.sessions.convert.convert import Reading, convert

    convert([path], None, Reading())


def nwb(path: Path) -> None:
    """Read a session."""
    from streams.sessions.reading import read_session

    read_session(path)


def bundle(path: Path) -> None:
    """Open a bundle one of whose files is changed, checksums made anew, and load its graph.

    The file's name is what comes before its content, to the first line break.
    """
    from export.backends.onnxruntime_session import open_session
    from export.bundle import open_bundle
    from tests.export.test_signing import recompute

    name, _, content = path.read_bytes().partition(b"\n")
    folder = path.parent / "bundle"
    original = (folder / name.decode()).read_bytes()
    manifest = (folder / "manifest.json").read_bytes()
    try:
        (folder / name.decode()).write_bytes(content)
        if name != b"manifest.json":
            recompute(folder)
        opened = open_bundle(folder)
        opened.parity()
        opened.weights()
        open_session(opened.graph_path.read_bytes())
    finally:
        (folder / name.decode()).write_bytes(original)
        (folder / "manifest.json").write_bytes(manifest)


OPENERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "xdf": (xdf, "a.xdf"),
    "nwb": (nwb, "a.nwb"),
    "bundle": (bundle, "changed"),
}


def main(surface: str, template: str) -> None:
    """Answer until the input ends."""
    from export.errors import ExportError
    from streams.errors import StreamsError

    # Libraries write where they like; answers go their own way.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_AT_MOST, MEMORY_AT_MOST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    open_it, name = OPENERS[surface]
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        if template:
            shutil.copytree(template, Path(folder) / "bundle")
        path = Path(folder) / name
        while line := sys.stdin.buffer.readline():
            path.write_bytes(sys.stdin.buffer.read(int(line)))
            answer: dict[str, Any] = {"refusal": "", "trace": ""}
            try:
                open_it(path)
            except (StreamsError, ExportError) as err:
                answer["refusal"] = str(err)
            except Exception:  # noqa: BLE001 - told to the parent, which fails by it
                answer["trace"] = traceback.format_exc()
            answer["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
