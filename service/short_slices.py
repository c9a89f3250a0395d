"""Short scheduler slices for a client: Linux grants them to anyone, and it wakes sooner."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

TASKS = Path("/proc/self/task")
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number, for which the C library has no function of old."""
RESET_ON_FORK = 1
CLIENT_SLICE_S = 4e-4
"""As long as a client needs to take in a decode."""


class _SchedAttr(ctypes.Structure):
    """Linux's `struct sched_attr`, of its first size."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    )


def wake_soon(slice_s: float = CLIENT_SLICE_S) -> bool:
    """Ask Linux to run this process's threads soon after they wake: for clients of the daemon.

    Who wakes waits until the thread that runs has had its slice, 1.4 ms on two cores, unless their
    own slice is shorter. That can be asked for without privilege, from Linux 6.12 on; before, it
    changes nothing. Threads that are not scheduled in the usual way stay as they are.

    Args:
        slice_s: 0.1 ms to 100 ms. Processes that are started from here have their own again.

    Returns:
        Whether the system took it.
    """
    number = SCHED_SETATTR.get(os.uname().machine)
    if number is None or not TASKS.exists():
        return False
    syscall, taken = ctypes.CDLL(None).syscall, True
    for task in (int(task.name) for task in TASKS.iterdir()):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if os.sched_getscheduler(task) != os.SCHED_OTHER:
                continue
            asked = _SchedAttr(
                size=ctypes.sizeof(_SchedAttr),
                sched_flags=RESET_ON_FORK,
                sched_policy=os.SCHED_OTHER,
                sched_nice=os.getpriority(os.PRIO_PROCESS, task),
                sched_runtime=round(slice_s * 1e9),
            )
            taken &= syscall(number, task, ctypes.byref(asked), 0) == 0
    return taken
