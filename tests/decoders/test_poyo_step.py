"""One window with folded tables, as the graph runs it, against the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from decoders.poyo.config import PoyoConfig, poyo_small
from decoders.poyo.network import Poyo, VocabularyError
from decoders.poyo.step import PoyoStep, step_config, step_from_config, step_of_session
from decoders.poyo.tokens import PoyoWindow, batch_of
from decoders.streaming.shape import OutputSpec
from streams.messages import SpikeBatch
from streams.spikes.tokenizer import TokenBins, cut_bins
from tests.decoders.poyo_windows import (
    RECORDINGS,
    SESSION,
    cut,
    random_network,
    recording,
    tiny_config,
    windows_of,
    words,
)

N_UNITS = 9
OUTPUTS = [OutputSpec("velocity", 2)]


def step_of(network: Poyo, offset: float = 0.0, scale: float = 1.0) -> PoyoStep:
    dims = network.config.dim_out
    outputs = [OutputSpec("velocity", dims)]
    units = network.unit_emb.words
    return step_of_session(network, SESSION, units, outputs, [offset] * dims, [scale] * dims)


@pytest.fixture(scope="module")
def network() -> Poyo:
    return random_network(tiny_config(), N_UNITS)


@pytest.fixture(scope="module")
def step(network: Poyo) -> PoyoStep:
    return step_of(network)


@torch.no_grad()
def stepped(
    step: PoyoStep, bins: TokenBins, i_bin: int = 0, lead_s: float = 0.0, n_padded: int = 0
) -> Tensor:
    held = slice(int(bins.offsets[i_bin]), int(bins.offsets[i_bin + 1]))
    tables = step.tables()
    unit, t_rel, count = bins.unit[held], bins.t_rel[held], bins.count[held]
    (value,) = step(
        torch.from_numpy(np.concatenate((unit, np.full(n_padded, 3, np.int32)))),
        torch.from_numpy(np.concatenate((t_rel, np.full(n_padded, 0.5, np.float32)))),
        torch.from_numpy(np.concatenate((count, np.zeros(n_padded, np.float32)))),
        tables["table"],
        tables["session"],
        torch.tensor([lead_s]),
    )
    out: Tensor = value
    return out


@torch.no_grad()
def expected(network: Poyo, bins: TokenBins, n_units: int, lead_s: float = 0.0) -> Tensor:
    windows = windows_of(bins, n_units)
    query_s = np.full((len(windows), 1), network.config.sequence_s + lead_s)
    answer: Tensor = network(batch_of(windows, query_s, network.config.sequence_s))
    return answer[:, 0]


def random_bins(n: int = 60, seed: int = 0, bin_us: int = 1_000_000) -> TokenBins:
    """One bin; units beyond the sixth are silent."""
    rng = np.random.default_rng(seed)
    spikes = SpikeBatch(
        rng.integers(1, bin_us + 1, n), rng.integers(0, 6, n).astype(np.int32), np.ones(n, np.int32)
    )
    rows = np.arange(N_UNITS, dtype=np.int32)
    return cut_bins(spikes, rows, np.array([bin_us]), bin_us)


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("config", [tiny_config(), poyo_small(2)])
def test_decodes_as_the_network(config: PoyoConfig, name: str) -> None:
    session = recording(name)
    bins, n_units = cut(session), len(session.unit_keys) + 5
    network = random_network(config, n_units)
    step = step_of(network)
    for lead_s in (0.0, -0.3, 0.25):
        wanted = expected(network, bins, n_units, lead_s)
        for i in range(len(bins)):
            found = stepped(step, bins, i, lead_s)
            torch.testing.assert_close(found, wanted[i], rtol=0, atol=5e-6)


def test_window_of_other_length(network: Poyo) -> None:
    config = PoyoConfig(**(tiny_config().to_dict() | {"sequence_s": 3.0, "latent_step_s": 0.5}))
    longer = random_network(config, N_UNITS)
    bins = random_bins(bin_us=3_000_000)
    found = stepped(step_of(longer), bins)
    torch.testing.assert_close(found, expected(longer, bins, N_UNITS)[0], rtol=0, atol=5e-6)


def test_rotation_is_exact_at_every_microsecond(step: PoyoStep) -> None:
    us = torch.arange(0, 2_000_001, 7, dtype=torch.float64)
    cos, sin = step._turn_at(us.float())
    turn = step.decoder.rotary_emb(us * 1e-6)
    n = step.config.n_rotated_pairs
    torch.testing.assert_close(cos.double(), turn.cos[:, :n], rtol=0, atol=3e-7)
    torch.testing.assert_close(sin.double(), turn.sin[:, :n], rtol=0, atol=3e-7)


@pytest.mark.parametrize(("moved_us", "same"), [(0.3, True), (-0.3, True), (1.0, False)])
def test_times_mean_whole_microseconds(step: PoyoStep, moved_us: float, same: bool) -> None:
    """Rounding to float32, at most 0.03 us in a second, leaves no trace; a microsecond does."""
    bins = random_bins()
    moved = (bins.t_rel.astype(np.float64) + moved_us * 1e-6).astype(np.float32)
    other = TokenBins(bins.unit, moved, bins.count, bins.offsets)
    assert torch.equal(stepped(step, other), stepped(step, bins)) is same


def test_padding_is_nothing(step: PoyoStep) -> None:
    bins = random_bins()
    found = stepped(step, bins, n_padded=13)
    torch.testing.assert_close(found, stepped(step, bins), rtol=0, atol=1e-6)


def test_empty_window(network: Poyo, step: PoyoStep) -> None:
    bins = random_bins(0)
    wanted = expected(network, bins, N_UNITS)[0]
    torch.testing.assert_close(stepped(step, bins), wanted, rtol=0, atol=5e-6)
    torch.testing.assert_close(stepped(step, bins, n_padded=1), wanted, rtol=0, atol=5e-6)


def test_count_is_so_many_spikes(step: PoyoStep) -> None:
    bins = random_bins()
    double = TokenBins(bins.unit, bins.t_rel, 2 * bins.count, bins.offsets)
    twice = TokenBins(
        *(np.tile(a, 2) for a in (bins.unit, bins.t_rel, bins.count)), 2 * bins.offsets
    )
    torch.testing.assert_close(stepped(step, double), stepped(step, twice), rtol=0, atol=1e-6)
    assert (stepped(step, double) - stepped(step, bins)).abs().max() > 1e-4


def test_values_leave_in_physical_units(network: Poyo, step: PoyoStep) -> None:
    scaled = step_of(network, offset=3.0, scale=20.0)
    wanted = stepped(step, random_bins()) * 20.0 + 3.0
    torch.testing.assert_close(stepped(scaled, random_bins()), wanted, rtol=0, atol=1e-5)


def test_row_of_a_unit_is_its_own(step: PoyoStep) -> None:
    """A new neuron changes one row of the table and no other."""
    before = step.tables()["table"]
    embedding = step.decoder.unit_emb.weight[1:].detach().clone()
    embedding[4] += 1.0
    changed = (step.fold(embedding) != before).any(dim=1)
    assert changed.tolist() == [i == 4 for i in range(N_UNITS)]


def test_only_the_chosen_units_and_their_order() -> None:
    """Rows of the table follow the order of the words, not that of the vocabulary."""
    network = random_network(tiny_config(), N_UNITS)
    chosen = [words(N_UNITS)[i] for i in (5, 2, 7)]
    step = step_of_session(network, SESSION, chosen, OUTPUTS, [0.0] * 2, [1.0] * 2)
    window = PoyoWindow(np.array([6, 3, 8]), np.array([2, 0]), np.array([0.2, 0.7]), np.ones(2), 1)
    with torch.no_grad():
        wanted = network(batch_of([window], np.ones((1, 1)), 1.0))[0, 0]
    spikes = SpikeBatch(
        np.array([200_000, 700_000]), np.array([2, 0], np.int32), np.ones(2, np.int32)
    )
    bins = cut_bins(spikes, np.arange(3, dtype=np.int32), np.array([1_000_000]), 1_000_000)
    torch.testing.assert_close(stepped(step, bins), wanted, rtol=0, atol=5e-6)
    with pytest.raises(VocabularyError, match="has no lab/other"):
        step_of_session(network, SESSION, ["lab/other"], OUTPUTS, [0.0] * 2, [1.0] * 2)


def test_restored_from_plain_types(step: PoyoStep) -> None:
    restored = step_from_config(step_config(step.config, step.outputs, N_UNITS))
    restored.load_state_dict({k: v for k, v in step.state_dict().items() if "vocab" not in k})
    assert torch.equal(stepped(restored.eval(), random_bins()), stepped(step, random_bins()))


def test_what_cannot_be_run_is_refused() -> None:
    config = tiny_config()
    with pytest.raises(ValueError, match="reads out 2 numbers, the outputs have 3"):
        PoyoStep(config, [OutputSpec("velocity", 3)], 4)
    longer = PoyoConfig(**(config.to_dict() | {"sequence_s": 5.0}))
    with pytest.raises(ValueError, match="window is 5 s; at most 4 s"):
        PoyoStep(longer, OUTPUTS, 4)


def test_embeddings_of_units_learn_through_the_table(network: Poyo) -> None:
    """What adaptation needs: gradients reach rows and session vector, and only rows that exist."""
    step, bins = step_of(network), random_bins()
    tables = step.tables()
    (value,) = step(
        torch.from_numpy(bins.unit),
        torch.from_numpy(bins.t_rel),
        torch.from_numpy(bins.count),
        tables["table"],
        tables["session"],
        torch.zeros(1),
    )
    value.square().sum().backward()
    grad = step.decoder.unit_emb.weight.grad
    assert grad is not None
    assert (grad[1:].abs().amax(dim=1) > 0).all()
    assert step.decoder.session_emb.weight.grad is not None
