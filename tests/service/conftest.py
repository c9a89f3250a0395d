from __future__ import annotations

import pytest

from export.bundle import DecoderBundle
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import HOP_S, UNIT_KEYS, BeatRig


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, DecoderBundle]:
    """Velocity (safe zero) and position (hold), context 0.5 s, by how many hops a bin lasts."""
    where = tmp_path_factory.mktemp("bundles")
    return {
        n: write_tiny_bundle(where / str(n), UNIT_KEYS, HOP_S, n * HOP_S, with_position=True)
        for n in (1, 2, 3)
    }


@pytest.fixture(scope="session")
def bundle(bundles: dict[int, DecoderBundle]) -> DecoderBundle:
    """The one whose bins last a hop."""
    return bundles[1]


@pytest.fixture
def rig(bundle: DecoderBundle) -> BeatRig:
    return BeatRig(bundle)
