"""The closed form's step on profiles: its slopes are the decoder's, and it lessens errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.adaptation import sensitivity as slopes_of
from calibration.adaptation.adapted import Options
from calibration.adaptation.calibration_data import CalibrationData, prepare
from calibration.adaptation.closed_form import ClosedForm
from calibration.adaptation.profile_step import alike, profile_step
from export.bundle import open_bundle
from streams.sessions.reading import read_session

OPTIONS = Options(False, False, True, 0, None)


@pytest.fixture(scope="module")
def closed(folder: Path) -> ClosedForm:
    return ClosedForm(open_bundle(folder / "counts"))


@pytest.fixture(scope="module")
def data(closed: ClosedForm, folder: Path) -> CalibrationData:
    session = read_session(folder / "new.nwb")
    return prepare(closed.bundle, session, seconds=20.0, start_s=5.0, test="last:0.2")


def test_slopes_are_those_of_the_decoder(
    closed: ClosedForm, data: CalibrationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against answers of tables that were made of profiles a little apart."""
    monkeypatch.setattr(slopes_of, "BACK_S", 4.0)
    monkeypatch.setattr(slopes_of, "RUN_UP_S", 5.0)
    found = closed.unit_rows(data, OPTIONS)
    base = closed.sensitivity(found, data)
    unit, entry, size = 4, 1, 0.02
    change = np.zeros((len(data.recording.unit_keys), base.slopes.shape[3]))
    answers = []
    for sign in (1.0, -1.0):
        change[unit, entry] = sign * size
        answers.append(closed.sensitivity(closed.moved(found, change), data).answer)
    measured = (answers[0] - answers[1]) / (2.0 * size)
    told = base.slopes[:, :, unit, entry]
    continuous = slice(0, 2)
    assert np.abs(measured[:, continuous]).max() > 0.01
    np.testing.assert_allclose(
        told[:, continuous], measured[:, continuous], atol=0.05 * np.abs(measured).max()
    )


def test_the_step_lessens_the_errors_of_trials_that_it_has_not_seen(
    closed: ClosedForm, data: CalibrationData
) -> None:
    """Where profiles are spoilt as far as they are said to be uncertain."""
    found = closed.unit_rows(data, OPTIONS)
    true = closed.sensitivity(found, data)
    n_units, n_slopes = true.slopes.shape[2:]
    covariance = np.tile(0.05**2 * np.eye(n_slopes), (n_units, 1, 1))
    spoilt = np.random.default_rng(0).normal(0.0, 0.05, (n_units, n_slopes))
    off = np.einsum("bdup,up->bd", true.slopes, spoilt)
    folds = np.arange(len(true.at)) // 5 % 4 == np.arange(4)[:, None]
    part, continuous = data.recording.train, slice(0, 2)
    targets = np.zeros_like(true.answer)
    targets[:, continuous] = data.targets[part.first + true.at][:, continuous]
    targets = (targets - data.offset) / data.scale
    step = profile_step(true, targets + off, covariance, data, folds)
    before, after = (
        np.square(decoded - targets)[:, continuous].mean()
        for decoded in (targets + off, step.decoded)
    )
    assert after < 0.5 * before
    cosine = np.sum(step.change * -spoilt) / np.linalg.norm(step.change) / np.linalg.norm(spoilt)
    assert cosine > 0.2


def test_errors_that_are_alike_count_once() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(size=(4000, 1))
    smooth = np.convolve(white[:, 0], np.ones(10) / 10, "same")[:, None]
    assert alike(white)[0] < 2.0
    assert 7.0 < alike(smooth)[0] < 14.0
