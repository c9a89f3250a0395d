"""`status` and `watch` for people, from a running daemon; `watch` in a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable

from tests.system.running import Daemon, Process, wait_until
from tests.system.sources import Living

_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class InTerminal:
    """A command whose standard output is a terminal; what it draws, without colours."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        env = os.environ | {"COLUMNS": "100", "LINES": "30", "TERM": "xterm-256color"}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _RUN, *arguments], stdout=theirs, stderr=theirs, env=env
        )
        os.close(theirs)
        self.drawn = ""

    def read(self) -> str:
        """Take in what it drew; all of it so far."""
        with contextlib.suppress(OSError):  # nothing there, or nobody draws any more
            self.drawn += _CONTROLS.sub("", os.read(self._ours, 65536).decode(errors="replace"))
        return self.drawn

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self._ours)


def test_watch_in_a_terminal_draws_validity_and_says_what_is_wrong(
    daemon: Daemon, source: Living
) -> None:
    watch = InTerminal("watch", "--decode", daemon.endpoint)
    try:
        daemon.until(lambda _: "decoding" in watch.read(), source.send_due)
        for part in ("velocity", "when it comes", "decodes a second", "lost on the way"):
            daemon.until(lambda _, part=part: part in watch.read(), source.send_due)
        daemon.ask("pause")
        daemon.until(lambda _: "an operator paused decoding" in watch.read(), source.send_due)
        daemon.until(lambda _: "paused" in watch.read(), source.send_due)
        daemon.ask("resume")
        daemon.until(lambda _: "is the amplifier's program running?" in watch.read())
        watch.popen.send_signal(signal.SIGINT)
        wait_until(lambda: watch.popen.poll() is not None, watch.read)
        assert watch.popen.returncode == 0
    finally:
        watch.close()


def test_watch_elsewhere_prints_a_line_for_each_decode(
    daemon: Daemon, source: Living, run: Callable[..., Process]
) -> None:
    watch = run("watch", "--decode", daemon.endpoint, "--count", "5")
    daemon.until(lambda _: not watch.is_alive, source.send_due)
    assert watch.code() == 0
    lines = [line for line in watch.out.splitlines() if " tokens " in line]
    assert len(lines) == 5
    assert "\x1b" not in watch.out


def test_status_is_in_words(daemon: Daemon, source: Living, run: Callable[..., Process]) -> None:
    daemon.until_validity("ok", source.send_due)
    status = run("status", "--control", daemon.control)
    daemon.until(lambda _: not status.is_alive, source.send_due)
    assert status.code() == 0
    assert "decoding" in status.out
    assert source.name in status.out
    assert "t_sent" not in status.out
