from __future__ import annotations

from collections.abc import Iterator

import pytest

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


@pytest.fixture
def living(stream: str) -> Iterator[SenderProcess]:  # noqa: F811
    """A source in a process of its own, which goes on while the test waits."""
    sender = SenderProcess(stream, UNIT_KEYS)
    yield sender
    sender.close()
