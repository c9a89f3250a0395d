"""A subscriber in a process of its own, that a test stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.network.other_machine import OtherMachine
from tests.faults.systemd.machine import Machine
from tests.system.running import unique

_READ = """
import json, sys, time
from pathlib import Path
from streams.wire.curve_keys import read_curve_keys
from streams.wire.sockets import DecodeSubscriber

keys = read_curve_keys(Path(sys.argv[3])) if sys.argv[3] else None
subscriber = DecodeSubscriber(sys.argv[1], ("decode",), keys)
with open(sys.argv[2], "w", buffering=1) as told:
    while True:
        received = subscriber.receive(1.0)
        if received is not None:
            decode = received[1]
            fields = {name: decode[name] for name in ("seq", "validity", "t_window", "run_id")}
            told.write(json.dumps(fields | {"t_read": time.monotonic()}) + "\\n")
"""


class SubscriberProcess:
    """Reads decodes, and notes when it had each.

    Args:
        folder: where its notes go.
        endpoint: the daemon's decodes.
        keys: the client's file; "" where none is asked for.
        machine: where it runs; None for here.
    """

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        keys: str = "",
        machine: OtherMachine | Machine | None = None,
    ) -> None:
        self._notes = folder / f"{unique('read')}.jsonl"
        command = [sys.executable, "-c", _READ, endpoint, str(self._notes), keys]
        self._popen = machine.run(command) if machine else subprocess.Popen(command)

    @property
    def read(self) -> list[dict[str, Any]]:
        """What it has read so far."""
        if not self._notes.exists():
            return []
        whole = self._notes.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def stand_still(self) -> None:
        """Stop it."""
        os.kill(self._popen.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        os.kill(self._popen.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()
