from __future__ import annotations

import os
import signal

from tests.bare_timer import MOST_LATE_S, BareTimer
from tests.system.running import clock, wait_until


def test_a_machine_that_stands_still_is_told_from_one_that_keeps_time() -> None:
    timer = BareTimer()
    try:
        wait_until(lambda: timer.latest_s > 0)
        os.kill(timer.pid, signal.SIGSTOP)
        timer.start()
        clock.sleep_until(clock.now() + 3 * MOST_LATE_S)
        os.kill(timer.pid, signal.SIGCONT)
        wait_until(lambda: timer.was_late)
        assert timer.latest_s >= 2 * MOST_LATE_S
        timer.start()
        assert not timer.was_late
    finally:
        timer.close()
