"""A client asks for short slices and changes nothing else: no policy, no niceness, no child."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from service.short_slices import SCHED_SETATTR

SLICES = """
import ctypes, json, os, subprocess, sys, threading
from service.short_slices import SCHED_SETATTR, _SchedAttr, wake_soon

def told(task=0):
    attr = _SchedAttr()
    number = SCHED_SETATTR[os.uname().machine] + 1
    assert ctypes.CDLL(None).syscall(number, task, ctypes.byref(attr), ctypes.sizeof(attr), 0) == 0
    return attr.sched_policy, attr.sched_nice, attr.sched_runtime

os.nice(3)
ready, done, fifo = threading.Event(), threading.Event(), []

def wait():
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        fifo.append(threading.get_native_id())
    except PermissionError:
        pass
    ready.set()
    done.wait()

thread = threading.Thread(target=wait)
thread.start()
ready.wait()
before, taken = told(), wake_soon()
after, policies = told(), [os.sched_getscheduler(task) for task in fifo]
code = "import os; print(os.sched_getscheduler(0))"
child = int(subprocess.check_output([sys.executable, "-c", code]))
done.set()
print(json.dumps([before, taken, after, policies, child]))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in SCHED_SETATTR, reason="Linux's"
)
def test_a_client_may_ask_for_short_slices() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLICES], capture_output=True, text=True, check=True
    )
    before, taken, after, policies, child = json.loads(done.stdout)
    assert taken
    assert after[:2] == before[:2] == [os.SCHED_OTHER, 3]
    assert after[2] in (before[2], 400_000)  # systems before Linux 6.12 leave it as it was
    assert all(policy == os.SCHED_FIFO for policy in policies)
    assert child == os.SCHED_OTHER
