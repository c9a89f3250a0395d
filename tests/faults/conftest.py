from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.seen import Row, Seen, table
from tests.system.conftest import (  # noqa: F401 - fixtures
    UNIT_KEYS,
    bundle,
    config,
    daemon,
    other,
    run,
    serve,
    source,
    stream,
)
from tests.system.sender_process import SenderProcess

is_full = os.environ.get("SPIKELOOP_FULL", "") not in ("", "0")
only_full = pytest.mark.skipif(not is_full, reason="takes long: `make faults`")


ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    """Notes what a client sees of the test's faults; nothing old may be `ok` in any of them."""
    noted = Seen(request.node.name)
    yield noted
    rows = noted.rows()
    request.config.stash.setdefault(ROWS, []).extend(rows)
    assert not sum(row.n_not_current for row in rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was seen, for docs/faults.md."""
    if is_full and (rows := terminalreporter.config.stash.get(ROWS, [])):
        terminalreporter.write_line(table(rows))


@pytest.fixture
def living(stream: str) -> Iterator[SenderProcess]:  # noqa: F811
    """A source in a process of its own, which goes on while the test waits."""
    sender = SenderProcess(stream, UNIT_KEYS)
    yield sender
    sender.close()
