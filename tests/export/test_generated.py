from __future__ import annotations

from pathlib import Path

import pytest

from export.backends.opening import open_backend
from export.bundle import DecoderBundle, open_bundle
from export.errors import BundleError
from export.random_bundles.derived import derive_bundle

KEYS = [f"ch{i}/u1" for i in range(500)]


@pytest.fixture(scope="module")
def derived(pristine: DecoderBundle, tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    where = tmp_path_factory.mktemp("derived") / "b"
    return derive_bundle(pristine, where, unit_keys=KEYS, hop_s=0.01, bin_s=0.01, seed=3)


def test_keeps_the_graph_and_takes_the_units(
    pristine: DecoderBundle, derived: DecoderBundle
) -> None:
    assert derived.graph_path.read_bytes() == pristine.graph_path.read_bytes()
    assert list(derived.row_of_key) == KEYS
    assert (derived.manifest.hop_s, derived.manifest.bin_s) == (0.01, 0.01)
    assert derived.manifest.parent_id == pristine.manifest.id
    assert open_bundle(derived.path).manifest == derived.manifest


def test_rows_are_drawn_from_the_base(pristine: DecoderBundle, derived: DecoderBundle) -> None:
    rows = derived.tables["table"]
    assert rows.shape == (500, 8)
    held = {row.tobytes() for row in pristine.tables["table"]}
    assert {row.tobytes() for row in rows} == held


def test_says_that_it_decodes_nothing(derived: DecoderBundle) -> None:
    assert derived.manifest.name == "generated"
    assert "decodes nothing" in str(derived.manifest.training["note"])
    assert derived.manifest.verification is None


def test_passes_the_gate(derived: DecoderBundle) -> None:
    assert open_backend(derived, "onnxruntime-cpu").parity_error == 0.0
    assert len(derived.parity()) == 100


def test_largest_bucket_holds_a_bin_of_fast_units(derived: DecoderBundle) -> None:
    assert derived.manifest.token_buckets == (64, 128, 256)


def test_a_seed_gives_one_bundle(pristine: DecoderBundle, tmp_path: Path) -> None:
    ids = [
        derive_bundle(
            pristine, tmp_path / str(i), unit_keys=KEYS[:9], hop_s=0.02, bin_s=0.05, seed=seed
        ).manifest.id
        for i, seed in enumerate((1, 1, 2))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_bin_shorter_than_hop_is_refused(pristine: DecoderBundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="`bin_s`"):
        derive_bundle(pristine, tmp_path / "b", unit_keys=KEYS[:9], hop_s=0.05, bin_s=0.02)
