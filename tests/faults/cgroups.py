"""Control groups of the test's own, of either version: processor time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.system.running import unique, wait_until

ROOT = Path("/sys/fs/cgroup")
CPU_PERIOD_US = 100_000


def _parent(controller: str) -> Path | None:
    """Where groups with this controller may be made; None where they may not."""
    one = ROOT / controller
    if one.is_dir() and os.access(one, os.W_OK):
        return one
    with suppress(OSError):
        if controller in (ROOT / "cgroup.subtree_control").read_text().split():
            return ROOT if os.access(ROOT, os.W_OK) else None
    return None


def may_limit(controller: str) -> bool:
    return os.geteuid() == 0 and _parent(controller) is not None


@contextmanager
def limited(controller: str, limit: dict[str, str], pid: int) -> Iterator[Path]:
    """Hold a process to a limit; it is let go at the end.

    Args:
        controller: `cpu` or `memory`.
        limit: what to write to which file; those that are not there are of the other version.
        pid: the process.
    """
    parent = _parent(controller)
    assert parent is not None
    group = parent / unique("spikeloop")
    group.mkdir()
    written = 0
    for name, value in limit.items():
        if (group / name).exists():
            (group / name).write_text(value)
            written += 1
    assert written
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield group
    finally:
        with suppress(OSError):  # it has ended
            (parent / "cgroup.procs").write_text(str(pid))

        def is_gone() -> bool:
            with suppress(OSError):
                group.rmdir()
            return not group.exists()

        wait_until(is_gone)


def share_of_a_core(share: float) -> dict[str, str]:
    us = round(share * CPU_PERIOD_US)
    return {
        "cpu.max": f"{us} {CPU_PERIOD_US}",
        "cpu.cfs_period_us": str(CPU_PERIOD_US),
        "cpu.cfs_quota_us": str(us),
    }


def bytes_of_memory(n: int) -> dict[str, str]:
    return {"memory.max": str(n), "memory.limit_in_bytes": str(n)}
