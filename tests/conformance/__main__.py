"""Hold clients against the recorded stream: `python -m tests.conformance [NAME ...]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.conformance.clients import MAKERS, LackingError
from tests.conformance.runner import ClientFailure, play


def main(names: list[str]) -> int:
    """Play the stream to each client named, or to all; the number that failed."""
    n_failed = 0
    for name in names or MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                program = MAKERS[name](Path(folder))
                n_held = play(program.command, program.folder)
                line = f"passed, {n_held} answers ({program.versions})"
            except LackingError as err:
                line = f"not run: {err}"
            except ClientFailure as err:
                n_failed += 1
                line = f"FAILED: {err}"
        sys.stdout.write(f"{name:8} {line}\n")
        sys.stdout.flush()
    return n_failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
