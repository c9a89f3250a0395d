from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business, not the property's.
settings.register_profile("spikeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spikeloop")

ALONE = ("system", "service")
"""Folders whose tests meet a clock: beside another test they would measure that one."""
HERE = Path(__file__).parent
DOOR, ROOM = Path(__file__), HERE.parent / "pyproject.toml"
"""Files that are locked, as they are there and stay; nothing is written to them."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Where several processes share the tests (`pytest -n 2`), those that meet a clock run alone.

    Who waits to run alone stands in the door: nobody else begins before.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    is_alone = item.path.relative_to(HERE).parts[0] in ALONE
    with DOOR.open() as door, ROOM.open() as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)
