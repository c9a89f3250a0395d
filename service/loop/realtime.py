"""What the operating system can do for the beat: priority, cores of its own, memory kept in.

Each is asked for in `[realtime]`; what is not permitted is said, and the daemon goes on without it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from service.config import RealtimeConfig

MCL_CURRENT, MCL_FUTURE = 1, 2
M_ARENA_MAX = -8
N_ARENAS = 1


def apply(config: RealtimeConfig) -> Iterator[tuple[str, bool, str]]:
    """Apply to the calling thread (memory: to the process).

    Yields:
        What was asked, whether it holds, and what to do if not.
    """
    if config.priority:
        yield "priority", *_set_priority(config.priority)
    if config.cores:
        yield "cores", *_set_cores(set(config.cores))
    if config.lock_memory:
        yield "lock_memory", *_lock_memory()


def bound_heaps() -> None:
    """Let glibc keep one heap for all threads, where it is the C library.

    Its default, several, are fragmented each on its own, and the process grows for hours.
    To be called before threads start.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, N_ARENAS)


def _set_priority(priority: int) -> tuple[bool, str]:
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
