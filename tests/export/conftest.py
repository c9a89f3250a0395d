from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.bundle import DecoderBundle, open_bundle
from tests.export.families import write_poyo_bundle, write_streaming_bundle
from tests.export.tiny_graph import write_tiny_bundle

UNIT_KEYS = ("u3", "u1", "ch7/u2", "ch7/u1")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """A bundle that no test changes."""
    where = tmp_path_factory.mktemp("bundles") / "tiny"
    return write_tiny_bundle(where, UNIT_KEYS, with_position=True)


@pytest.fixture
def bundle(pristine: DecoderBundle, tmp_path: Path) -> DecoderBundle:
    """A copy that the test may damage."""
    where = tmp_path / "tiny"
    shutil.copytree(pristine.path, where)
    return open_bundle(where)


@pytest.fixture(scope="session")
def poyo_bundle(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """POYO with random weights, three buckets."""
    return write_poyo_bundle(tmp_path_factory.mktemp("bundles") / "poyo")


@pytest.fixture(scope="session")
def streaming_bundle(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """The shipped decoder's graph for 150 units that fire so much that it takes three buckets."""
    return write_streaming_bundle(tmp_path_factory.mktemp("bundles") / "streaming")


@pytest.fixture(params=("streaming_bundle", "poyo_bundle"))
def family(request: pytest.FixtureRequest) -> DecoderBundle:
    """A decoder of each family."""
    found: DecoderBundle = request.getfixturevalue(request.param)
    return found
