"""The linear filter of a day: fitted to its labels, weighed by trials held out, kept in tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.adaptation.adapt import adapt
from calibration.adaptation.calibration_data import CalibrationData, prepare
from calibration.adaptation.gradient.batched_fits import Start
from calibration.adaptation.gradient.search import Found, search
from calibration.adaptation.gradient.starts import Base, load_base
from calibration.adaptation.gradient.streaming import decodes_of_folds
from calibration.adaptation.linear_filter import SHARES, Filter, fit_filter
from export.bundle import open_bundle
from export.graphs import streaming
from streams.sessions.reading import read_session
from tests.calibration.newcomers import adapted


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load_base(open_bundle(folder / "counts"))


@pytest.fixture(scope="module")
def data(folder: Path) -> CalibrationData:
    session = read_session(folder / "new.nwb")
    bundle = open_bundle(folder / "counts")
    return prepare(bundle, session, seconds=30.0, start_s=5.0, test="last:0.2")


@pytest.fixture(scope="module")
def found(base: Base, data: CalibrationData) -> Found:
    return search(base, data, same_array=False, seed=0)


def strange(found: Found, seed: int = 0) -> Found:
    """Embeddings of nobody, with which the network decodes nothing."""
    drawn = torch.Generator().manual_seed(seed)
    ends = [
        Start(end.name, torch.randn(end.embedding.shape, generator=drawn), end.session)
        for end in (found.end, *found.without)
    ]
    return Found(ends[0], 0, tuple(ends[1:]))


def fitted_to(base: Base, data: CalibrationData, found: Found) -> Filter:
    folds = decodes_of_folds(base.decoder, data, found)
    return fit_filter(base.decoder.config, data, folds)


def of_velocity(fitted: Filter) -> float:
    return float(fitted.blend[0, 0])


def test_it_counts_for_more_where_the_network_decodes_nothing(
    base: Base, data: CalibrationData, found: Found
) -> None:
    shares = [of_velocity(fitted_to(base, data, f)) for f in (found, strange(found))]
    assert SHARES[0] <= shares[0] < shares[1] <= SHARES[-1]


def test_where_nothing_was_held_out_every_share_is_as_likely(
    base: Base, data: CalibrationData, found: Found
) -> None:
    untested = Found(found.end, 0)
    assert of_velocity(fitted_to(base, data, untested)) == pytest.approx(SHARES.mean())


def test_classes_are_the_networks_alone(base: Base, data: CalibrationData, found: Found) -> None:
    fitted = fitted_to(base, data, found)
    assert set(fitted.shares(data.outputs)) == {"velocity"}
    assert (fitted.blend[0, 2:] == 0.0).all()
    rows = fitted.rows.reshape(len(fitted.rows), -1, fitted.blend.shape[1])
    assert (rows[..., 2:] == 0.0).all()
    assert (rows[..., :2] != 0.0).all()


def test_it_lies_in_tables_and_is_told(folder: Path, tmp_path: Path) -> None:
    result = adapted(folder, tmp_path / "out", seconds=30.0)
    made = open_bundle(tmp_path / "out")
    assert made.manifest.training["adaptation"]["filter_share"] == result["filter_share"]
    share = result["filter_share"]["velocity"]
    np.testing.assert_allclose(made.tables["blend"][0], [share, share, 0.0, 0.0], atol=1e-3)
    base = open_bundle(folder / "counts")
    for name in ("filter_rows", "filter_centre", "blend"):
        assert not base.tables[name].any()


def test_following_drift_may_be_declined(folder: Path, tmp_path: Path) -> None:
    follows = adapted(folder, tmp_path / "follows")
    still = adapted(folder, tmp_path / "still", follow_drift=False)
    assert (follows["follows_drift"], still["follows_drift"]) == (True, False)
    made, same = open_bundle(tmp_path / "follows").tables, open_bundle(tmp_path / "still").tables
    assert made["follow"] > 0.0
    assert not same["follow"].any()
    for name in set(made) - {"follow"}:
        np.testing.assert_array_equal(made[name], same[name])


def test_a_decoder_of_before_is_adapted_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "TAPS_S", ())
    older = streaming.export_run(folder / "counts-run", tmp_path / "older")
    assert older.manifest.graph.memory == ("memory_h",)
    result = adapt(tmp_path / "older", folder / "new.nwb", out=tmp_path / "out", seconds=30.0)
    assert result["filter_share"] == {}
    assert min(result["outputs"]["velocity"]["r2"]) > 0.6
    assert open_bundle(tmp_path / "out").graph_sha256 == older.graph_sha256
