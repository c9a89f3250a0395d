"""Drift is followed: what bins hold for minutes becomes usual, within bounds, if asked for."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from decoders.streaming.drift import FOLLOW_S, LARGEST, follow_share  # noqa: E402
from decoders.streaming.step import unadapted  # noqa: E402
from tests.decoders.test_linear_filter import Bins, counting  # noqa: E402
from tests.export.untrained import CONFIG, KEYS  # noqa: E402

EVERY = list(range(len(KEYS)))
USUAL, MORE = [1.0] * len(KEYS), [3.0] * len(KEYS)


def following(share: float, away: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tables of a decoder to which bins of `USUAL` are usual: `away` is what they hold."""
    tables = unadapted(len(KEYS), CONFIG) | {"follow": torch.tensor([share])}
    tables["usual"] = away[0, : CONFIG.n_pooled]
    tables["filter_centre"] = away[0, CONFIG.n_pooled :]
    return tables


def held_by(count: list[float]) -> torch.Tensor:
    """(1, n_pooled + n_sums) what a bin of every unit holds: the mean of one bin."""
    bins = Bins(unadapted(len(KEYS), CONFIG) | {"follow": torch.ones(1)})
    bins.run(EVERY, count)
    return bins.beside[1]


def test_a_drift_becomes_usual() -> None:
    """After ten of its time constants more spikes are decoded as the usual number was."""
    usual = Bins(following(0.0, held_by(USUAL)))
    drifted = Bins(following(0.1, held_by(USUAL)))
    for _ in range(200):
        wanted = usual.run(EVERY, USUAL)
        found = drifted.run(EVERY, MORE)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    stays = Bins(following(0.0, held_by(USUAL)))
    for _ in range(200):
        found = stays.run(EVERY, MORE)
    assert np.abs(found - wanted).max() > 1e-3


def test_where_it_is_not_followed_nothing_changes() -> None:
    plain, still = (
        Bins(None),
        Bins(following(0.0, held_by(USUAL)) | {"filter_centre": torch.zeros(CONFIG.n_sums)}),
    )
    for _ in range(5):
        np.testing.assert_array_equal(plain.run(EVERY, MORE), still.run(EVERY, MORE))
    assert not still.beside[1].any()


def test_the_filter_follows_too() -> None:
    """What its spikes add for long is taken for usual: nothing is left of it."""
    bins = Bins(counting() | {"follow": torch.tensor([0.1])})
    for _ in range(200):
        bins.run(EVERY, MORE)
    np.testing.assert_allclose(bins.beside[0].numpy(), 0.0, atol=1e-3)


def test_no_further_than_what_latents_vary_by() -> None:
    """A drift beyond the bound is decoded as one at the bound."""
    tables = unadapted(len(KEYS), CONFIG)
    found = []
    for far in (1.0, 5.0, 0.5):
        bins = Bins(tables)
        bins.step.decoder.pooled_gain[:] = 10.0
        bins.beside[1][:, : CONFIG.n_pooled] = far * LARGEST / 10.0
        found.append(bins.run(EVERY, USUAL))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[2] - found[0]).max() > 1e-4


def test_a_memory_is_as_long_whatever_the_bin() -> None:
    for bin_s in (0.01, 0.05):
        n_bins = round(FOLLOW_S / bin_s)
        assert (1.0 - follow_share(bin_s)) ** n_bins == pytest.approx(np.exp(-1.0), rel=1e-6)
