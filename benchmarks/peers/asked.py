"""A program that answers each line on its standard input with a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

from service.bench.rig import ProcessFailedError

END_WITHIN_S = 10.0


class AskedProgram:
    """One process of one thread; it ends with the block that it is opened in.

    Args:
        command: with its arguments.
        errors: file that receives its standard error.
    """

    def __init__(self, command: list[str], errors: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._name, self._errors = Path(command[1]).stem, errors
        with errors.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
                env=environment, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, line: str = "") -> dict[str, Any]:
        """Write a line, if there is one, and return the JSON object that is answered.

        Raises:
            ProcessFailedError: the process ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            said = self._errors.read_text(errors="replace").strip().splitlines()[-5:]
            raise ProcessFailedError(f"{self._name} ended: " + "\n".join(said), 1)
        told: dict[str, Any] = json.loads(answer)
        return told
