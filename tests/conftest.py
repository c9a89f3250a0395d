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

HERE = Path(__file__).parent
DOOR, ROOM = Path(__file__), HERE.parent / "pyproject.toml"
"""Files that are locked, as they are there and stay; nothing is written to them."""
LONG_FIRST = ("system", "promise", "calibration", "decoders")
"""Folders whose files take long: begun late, one worker would end with them alone."""


def pytest_configure(config: pytest.Config) -> None:
    for mark in (
        "alone: measures time; no other test runs beside it",
        "long: takes half a minute, and shares nothing with its file; begun first",
    ):
        config.addinivalue_line("markers", mark)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests on one worker, but for long ones; order all so that workers end together.

    Those that run alone come last: meanwhile the other workers wait.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        is_long = item.get_closest_marker("long") is not None
        name = item.nodeid if is_long else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))
        groups.setdefault(name, []).append(item)

    def place(name: str) -> tuple[bool, bool, int]:
        held, folder = groups[name], name.split("/")[1]
        i_folder = LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)
        return all(_is_alone(item) for item in held), "::" not in name, i_folder

    items[:] = [item for name in sorted(groups, key=place) for item in groups[name]]


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Where several processes share the tests (`pytest -n 2`), those marked `alone` run alone.

    Who waits to run alone stands in the door: nobody else begins before.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with DOOR.open() as door, ROOM.open() as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)
