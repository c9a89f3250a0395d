"""Files opened in a process apart, which is started again where one of them ends it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

WITHIN_S = 60.0


class EndedError(AssertionError):
    """The process died or hung."""


class Apart:
    """A worker.

    Args:
        surface: what it opens, see `worker.OPENERS`.
        template: a folder that it starts from; "" for none.
    """

    def __init__(self, surface: str, template: str = "") -> None:
        self._command = [sys.executable, "-m", "tests.fuzz.worker", surface, template]
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, content: bytes) -> str:
        """Open a file with this content; the sentence that refused it, "" if it was taken.

        Raises:
            EndedError: the process died of it, or did not answer in time.
            AssertionError: an error that is no refusal.
        """
        process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"%d\n" % len(content) + content)
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], WITHIN_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            self.close()
            raise EndedError(f"code {process.returncode}" if ready else f"hung for {WITHIN_S:g} s")
        answer: dict[str, Any] = json.loads(line)
        assert not answer["trace"], answer["trace"]
        return str(answer["refusal"])

    def _started(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
