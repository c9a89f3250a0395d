"""The sending process of the benches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from tests.system.running import Process, unique, wait_until


@pytest.mark.skipif(sys.platform != "linux", reason="policies are Linux's")
def test_the_sender_has_the_priority_that_it_asks_for(run: Callable[..., Process]) -> None:
    sender = run("bench", "sender", "--name", unique("sender"), "--priority", "3")
    pid = sender.popen.pid
    wait_until(lambda: "not permitted" in sender.err or os.sched_getscheduler(pid) == os.SCHED_FIFO)
    if "not permitted" in sender.err:
        pytest.skip(sender.err)
    assert os.sched_getparam(pid).sched_priority == 3
