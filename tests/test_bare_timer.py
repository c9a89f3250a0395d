from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bare_timer
from tests.bare_timer import MOST_LATE_S, MOST_QUEUED, PRESSURE, BareTimer
from tests.system.running import clock, wait_until


def test_a_machine_that_stands_still_is_told_from_one_that_keeps_time() -> None:
    timer = BareTimer()
    try:
        wait_until(lambda: timer.latest_s > 0)
        os.kill(timer.pid, signal.SIGSTOP)
        timer.start()
        clock.sleep_until(clock.now() + 3 * MOST_LATE_S)
        os.kill(timer.pid, signal.SIGCONT)
        wait_until(lambda: timer.latest_s > MOST_LATE_S)
        assert timer.was_late
        assert timer.latest_s >= 2 * MOST_LATE_S
        timer.start()
        assert timer.latest_s < 2 * MOST_LATE_S
    finally:
        timer.close()


@pytest.mark.skipif(not PRESSURE.exists(), reason="this kernel does not tell who waits for a core")
def test_a_crowded_machine_is_told_from_one_that_has_time() -> None:
    timer = BareTimer()
    busy = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        clock.sleep_until(clock.now() + 0.5)
        timer.start()
        clock.sleep_until(clock.now() + 0.5)
        assert timer.queued > MOST_QUEUED
        assert timer.was_late
    finally:
        for process in busy:
            process.kill()
            process.wait()
        timer.close()


def test_where_the_kernel_does_not_tell_only_the_timer_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bare_timer, "PRESSURE", tmp_path / "none")
    timer = BareTimer()
    try:
        assert timer.queued == 0.0
    finally:
        timer.close()
