from __future__ import annotations

import os
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

only_full = pytest.mark.skipif(
    os.environ.get("SPIKELOOP_FULL", "") in ("", "0"), reason="takes long: `make faults`"
)


@pytest.fixture
def living(stream: str) -> Iterator[SenderProcess]:  # noqa: F811
    """A source in a process of its own, which goes on while the test waits."""
    sender = SenderProcess(stream, UNIT_KEYS)
    yield sender
    sender.close()
