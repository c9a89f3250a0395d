"""Files opened in a process apart, which is started again where one of them ends it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WITHIN_S, N_WAITS = 20.0, 4
"""In parts: one goes by at once where both processes stood still (Ctrl-Z)."""


class EndedError(AssertionError):
    """The process died or hung."""


def _kept(content: bytes) -> str:
    """Keep what did harm, for a test of its own."""
    with tempfile.NamedTemporaryFile(prefix="spikeloop-fuzz-", delete=False) as file:
        file.write(content)
    return f"the file is kept as {file.name}"


class Apart:
    """A worker.

    Args:
        surface: what it opens, see `worker.OPENERS`.
        template: a folder that it starts from; "" for none.
        may_end: a library that is not ours is known to die or hang of damaged files: that is
            counted, and no failure.
        within_s: longer, and it hangs.

    Attributes:
        ended: what ended it, and where that is kept.
        most_mib: the largest memory that it ever had.
    """

    def __init__(
        self, surface: str, template: str = "", *, may_end: bool = False, within_s: float = WITHIN_S
    ) -> None:
        self._may_end, self._within_s = may_end, within_s
        self.ended: list[str] = []
        self.most_mib = 0.0
        self._command = [sys.executable, "-m", "tests.fuzz.worker", surface, template]
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, content: bytes) -> str:
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
        for _ in range(N_WAITS):
            ready, _, _ = select.select([process.stdout], [], [], self._within_s / N_WAITS)
            if ready:
                break
        line = process.stdout.readline() if ready else b""
        if not line:
            self.close()
            what = f"code {process.returncode}" if ready else f"hung for {self._within_s:g} s"
            self.ended.append(f"{what}; {_kept(content)}")
            if self._may_end:
                return what
            raise EndedError(self.ended[-1])
        answer: dict[str, Any] = json.loads(line)
        self.most_mib = max(self.most_mib, answer["mib"])
        assert not answer["trace"], f"{answer['trace']}; {_kept(content)}"
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

    def tell(self, surface: str) -> None:
        """Say what `pytest -s` shows of it: its memory, and what ended it."""
        print(f"{surface}: {self.most_mib:.0f} MiB in its process")  # noqa: T201
        for told in self.ended:
            print(f"{surface}: {told}")  # noqa: T201

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
