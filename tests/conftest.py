from __future__ import annotations

import fcntl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.bare_timer import MOST_LATE_S, MOST_QUEUED, BareTimer

# How long an example takes is the machine's business, not the property's.
settings.register_profile("spikeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spikeloop")

HERE = Path(__file__).parent
DOOR, ROOM = Path(__file__), HERE.parent / "pyproject.toml"
"""Files that are locked, as they are there and stay; nothing is written to them."""
LONG_FIRST = ("system", "promise", "calibration", "decoders", "recording")
"""Folders whose files take long: begun late, one worker would end with them alone."""


BESIDE = "a bare timer beside it"
TIMER = pytest.StashKey[BareTimer]()
LIVE = ("system", "calibration", "service", "faults", "recording", "docs", "streams", "bridges")
"""Folders whose tests run processes and sockets."""
RERUNS = 2


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        config.stash[TIMER] = BareTimer()
    for mark in (
        "alone: measures time; no other test runs beside it",
        "long: takes half a minute, and shares nothing with its file; begun first",
    ):
        config.addinivalue_line("markers", mark)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (timer := config.stash.get(TIMER, None)) is not None:
        timer.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Watch the machine while the test runs."""
    item.config.stash[TIMER].start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Say of a failure how late a bare timer was meanwhile, and how crowded the machine."""
    report = yield
    if report.failed:
        timer = item.config.stash[TIMER]
        told = (
            f"{timer.latest_s * 1e3:.0f} ms late at most, queued for a core {timer.queued:.0%} of "
            f"the time (run again from {MOST_LATE_S * 1e3:.0f} ms or {MOST_QUEUED:.0%} on)"
        )
        report.sections.append((BESIDE, told))
    return report


def _let_live_tests_run_again(items: list[pytest.Item]) -> None:
    """Mark live tests to run again if they fail while the machine stands still."""
    for item in items:
        if item.nodeid.split("/")[1] in LIVE:
            timer = item.config.stash[TIMER]
            still = partial(_stood_still, timer)
            item.add_marker(pytest.mark.flaky(reruns=RERUNS, condition=still))


def _stood_still(timer: BareTimer, _error: BaseException | None) -> bool:
    return timer.was_late


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were run again: one that comes up often is news, whatever the machine did."""
    for report in terminalreporter.stats.get("rerun", ()):
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message.splitlines()[0] if crash else "no message"
        beside = dict(report.sections).get(BESIDE, "")
        terminalreporter.write_line(f"RERUN {report.nodeid}: {why} ({beside})")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests on one worker, but for long ones; order all so that workers end together.

    Those that run alone come last: the other workers wait for each of them.
    """
    _let_live_tests_run_again(items)
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        is_long = item.get_closest_marker("long") is not None
        name = item.nodeid if is_long else item.nodeid.partition("::")[0]
        if _is_alone(item):
            name += "::alone"
        item.add_marker(pytest.mark.xdist_group(name))
        groups.setdefault(name, []).append(item)

    def place(name: str) -> tuple[bool, bool, int]:
        folder = name.split("/")[1]
        i_folder = LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)
        return name.endswith("::alone"), "::" not in name, i_folder

    items[:] = [item for name in sorted(groups, key=place) for item in groups[name]]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Refuse to share the tests out where a file's would not stay together.

    Each worker would make the file's fixtures anew, all of them at the same time.
    """
    if node.config.getvalue("dist") == "loadgroup" and not all("@" in one for one in ids):
        raise pytest.UsageError(
            f"pytest-xdist's groups do not work with pytest {pytest.__version__}: install the "
            "versions of constraints.txt, or run the tests in one process"
        )


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
        try:
            return (yield)
        finally:
            # Closing would not do: a child that the test forked holds the file too.
            fcntl.flock(room, fcntl.LOCK_UN)
