from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.worker import in_memory
from tests.system.conftest import bundle  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: a disk takes most of an input's time."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def told_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say the largest memory that this process ever had."""
    yield
    if "SPIKELOOP_EXAMPLES" in os.environ:
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{request.node.name}: {mib:.0f} MiB")  # noqa: T201
