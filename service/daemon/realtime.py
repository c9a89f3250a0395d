"""Ask the operating system for priority, own cores and locked memory.

Each is set in `[realtime]`. What is not permitted is reported, and the daemon goes on without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

MCL_CURRENT, MCL_FUTURE = 1, 2
TASKS = Path("/proc/self/task")
M_ARENA_MAX = -8
N_ARENAS = 1


def ask_for(
    priority: int, cores: Collection[int], ingest: threading.Thread, *, lock_memory: bool
) -> list[tuple[str, bool, str]]:
    """Ask for the calling thread, which is the beat's, and for what feeds it; see `apply`."""
    asked = list(apply(priority, cores, lock_memory=lock_memory))
    if priority and all(holds for _, holds, _ in asked):
        asked.append(("carriers", *lift_carriers(priority, ingest)))
    return asked


def apply(
    priority: int = 0, cores: Collection[int] = (), *, lock_memory: bool = False
) -> Iterator[tuple[str, bool, str]]:
    """Ask the operating system for the calling thread (memory: for the process).

    Args:
        priority: for SCHED_FIFO; 0 for none.
        cores: to stay on; none for all.
        lock_memory: keep the process's memory from being swapped out.

    Yields:
        The request, True if it holds, and what to do if not.
    """
    if priority:
        yield "priority", *set_priority(priority)
    if cores:
        yield "cores", *_set_cores(set(cores))
    if lock_memory:
        yield "lock_memory", *_lock_memory()


def lift_carriers(priority: int, ingest: threading.Thread) -> tuple[bool, str]:
    """Give the threads that carry spikes in and decodes out the loop's priority too, on Linux.

    They are the ingest thread, and LSL's and ZeroMQ's own threads: the loop waits for them as it
    does for the processor. Other Python threads stay as they are.

    Returns:
        True if it holds, and what was done, or what to do if not.
    """
    of_python = {thread.native_id for thread in threading.enumerate()}
    tasks = [int(task.name) for task in TASKS.iterdir()] if TASKS.exists() else []
    carriers = [task for task in tasks if task not in of_python or task == ingest.native_id]
    try:
        for task in carriers:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setscheduler(task, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as err:
        return False, f"threads of LSL and ZeroMQ keep their priority ({err})"
    return True, f"SCHED_FIFO {priority}: {len(carriers)} threads of ingest, LSL and ZeroMQ"


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the interpreter from stopping the calling thread: no collections, short turns."""
    # A collection stops the loop for milliseconds; a beat leaves no cycles behind.
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(1e-4)  # the default lets another thread keep the loop from its cut
    try:
        yield
    finally:
        gc.enable()


def bound_heaps() -> None:
    """Let glibc keep one heap for all threads, where it is the C library.

    Its default, several, are fragmented each on its own, and the process grows for hours.
    To be called before threads start.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, N_ARENAS)


def set_priority(priority: int) -> tuple[bool, str]:
    """Give the calling thread, and those that it starts, a real-time priority; (held, detail)."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, AttributeError) as err:
        return False, (
            f"SCHED_FIFO {priority} is not permitted ({err}); allow it with `rtprio` in "
            "/etc/security/limits.conf, or give the interpreter CAP_SYS_NICE"
        )
    return True, f"SCHED_FIFO {priority}"


def _set_cores(cores: set[int]) -> tuple[bool, str]:
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, AttributeError) as err:
        return False, f"the beat cannot be kept on cores {sorted(cores)}: {err}"
    return True, f"on cores {sorted(cores)}"


def _lock_memory() -> tuple[bool, str]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        return False, (
            f"memory cannot be locked ({os.strerror(ctypes.get_errno())}); raise `memlock` in "
            "/etc/security/limits.conf"
        )
    return True, "locked"
