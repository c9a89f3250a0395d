"""Tables in numpy are those that torch makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decoders.streaming.decoder import LaneTokens, SpikeEncoder
from decoders.streaming.profile_encoder import ProfileEncoder
from decoders.streaming.shape import OutputSpec, StreamingConfig
from decoders.streaming.unit_tables import UnitTables
from streams.spikes.tokenizer import TokenBins

N_UNITS, N_BINS, N_PROFILE = 7, 30, 8


@pytest.fixture(params=[0, 3], ids=["counts", "times"])
def shape(request: pytest.FixtureRequest) -> StreamingConfig:
    outputs = (OutputSpec("velocity", 2),)
    return StreamingConfig(
        outputs, bin_s=0.05, n_frequencies=request.param, n_latents=3, d_unit=8, d_value=6
    )


@pytest.fixture
def identity(shape: StreamingConfig) -> ProfileEncoder:
    torch.manual_seed(0)
    encoder = ProfileEncoder(N_PROFILE, shape.d_unit, 1.0)
    for buffer in (encoder.mean, encoder.gain):
        buffer.copy_(torch.rand(N_PROFILE) + 0.5)
    return encoder


@pytest.fixture
def encoder(shape: StreamingConfig) -> SpikeEncoder:
    torch.manual_seed(1)
    encoder = SpikeEncoder(shape)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return encoder


@pytest.fixture
def units(shape: StreamingConfig, identity: ProfileEncoder, encoder: SpikeEncoder) -> UnitTables:
    held = {f"identity.{name}": value for name, value in identity.state_dict().items()}
    held |= {f"decoder.encoder.{name}": value for name, value in encoder.state_dict().items()}
    empty = {f"units.{name}": torch.zeros(1) for name in ("embedding", "profile", "session")}
    return UnitTables({name: value.numpy() for name, value in (held | empty).items()}, shape)


def tokens() -> TokenBins:
    rng = np.random.default_rng(2)
    n_each = rng.integers(0, 9, N_BINS)
    n = int(n_each.sum())
    return TokenBins(
        rng.integers(0, N_UNITS, n).astype(np.int32),
        (rng.random(n) * 0.05).astype(np.float32),
        rng.integers(1, 3, n).astype(np.float32),
        np.concatenate([[0], np.cumsum(n_each)]).astype(np.int64),
    )


@torch.no_grad()
def test_rows_and_centre_are_those_of_torch(
    units: UnitTables, identity: ProfileEncoder, encoder: SpikeEncoder
) -> None:
    rng = np.random.default_rng(3)
    profile, mean = rng.normal(size=(N_UNITS, N_PROFILE)), rng.random(N_UNITS)
    embedding = identity(torch.from_numpy(profile).float())
    rows = encoder.fold(embedding)
    made = units.rows(units.embeddings(profile))
    np.testing.assert_allclose(made, rows.numpy(), atol=1e-5)
    centre = encoder.centre(rows, torch.from_numpy(mean).float())
    np.testing.assert_allclose(units.centre(made, mean), centre.numpy(), atol=1e-5)


@torch.no_grad()
def test_usual_latents_are_those_of_torch(units: UnitTables, encoder: SpikeEncoder) -> None:
    cut, first, last = tokens(), 4, 27
    rows = encoder.fold(torch.randn(N_UNITS, units.shape.d_unit))
    held = slice(int(cut.offsets[first]), int(cut.offsets[last]))
    bins = np.repeat(np.arange(last - first), np.diff(cut.offsets[first : last + 1]))
    of_lane = LaneTokens(
        torch.zeros(len(bins), dtype=torch.int64),
        torch.from_numpy(bins),
        torch.from_numpy(cut.unit[held].astype(np.int64)),
        torch.from_numpy(cut.t_rel[held]),
        torch.from_numpy(cut.count[held]),
        (1, last - first),
    )
    wanted = encoder.pool(encoder.sums(rows, of_lane))[0].mean(dim=0)
    found = units.usual_latents(rows.numpy(), cut, first, last)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
