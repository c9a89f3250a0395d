from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business, not the property's.
settings.register_profile("spikeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spikeloop")

ALONE = ("system", "service")
"""Folders whose tests meet a clock: beside another test they would measure that one."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Where several processes share the tests (`pytest -n 2`), those that meet a clock run alone.

    Who waits to run alone stands in the door: nobody else begins before.
    """
    run = getattr(item.config, "workerinput", None)
    if run is None:
        return (yield)
    place = Path(tempfile.gettempdir()) / f"spikeloop-tests-{run['testrunuid']}"
    is_alone = item.path.relative_to(Path(__file__).parent).parts[0] in ALONE
    with ExitStack() as held:
        door, room = (held.enter_context(place.with_suffix(f".{n}").open("w")) for n in "dr")
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The locks of a run go with it."""
    if run := getattr(config, "workerinput", None):
        for name in "dr":
            path = Path(tempfile.gettempdir()) / f"spikeloop-tests-{run['testrunuid']}.{name}"
            path.unlink(missing_ok=True)
