from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.conftest import bundle  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def told_memory(request: pytest.FixtureRequest, record_property: Any) -> Iterator[None]:
    """Say the largest memory that this process, and those that it started, ever had."""
    yield
    if "SPIKELOOP_EXAMPLES" in os.environ:
        own, others = (
            resource.getrusage(who).ru_maxrss / 1024
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(f"{request.node.name}: {own:.0f} MiB, ended children {others:.0f} MiB")  # noqa: T201
