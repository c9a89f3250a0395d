from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from tests.system.conftest import bundle  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def told_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say the largest memory that this process ever had."""
    yield
    if "SPIKELOOP_EXAMPLES" in os.environ:
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{request.node.name}: {mib:.0f} MiB")  # noqa: T201
