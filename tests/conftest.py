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
    config.addinivalue_line("markers", "alone: measures time; no other test runs beside it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files so that workers end together, and those that run alone come last."""
    of_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        of_file.setdefault(item.path, []).append(item)

    def place(path: Path) -> tuple[bool, int]:
        folder = path.relative_to(HERE).parts[0]
        i_folder = LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)
        return all(_is_alone(item) for item in of_file[path]), i_folder

    items[:] = [item for path in sorted(of_file, key=place) for item in of_file[path]]


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
