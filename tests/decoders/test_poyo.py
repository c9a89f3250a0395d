"""POYO: against recorded decodes of torch_brain, and in what it must and must not depend on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decoders.poyo.checkpoint import read_checkpoint
from decoders.poyo.config import PoyoConfig, from_torch_brain, poyo_large, poyo_small
from decoders.poyo.network import Poyo, Vocabulary, VocabularyError
from decoders.poyo.tokens import PoyoWindow, batch_of, exact_s
from tests.decoders.poyo_windows import REFERENCE, SESSION, random_network, tiny_config, words

N_UNITS = 7


@pytest.fixture(scope="module")
def network() -> Poyo:
    return random_network(tiny_config(), N_UNITS).double()


def window(n: int = 40, seed: int = 0, n_firing: int = N_UNITS - 2) -> PoyoWindow:
    """Units beyond `n_firing` are silent."""
    rng = np.random.default_rng(seed)
    return PoyoWindow(
        units=np.arange(1, N_UNITS + 1),
        unit=rng.integers(0, n_firing, n),
        t_s=np.sort(rng.integers(1, 1_000_001, n)) * 1e-6,
        count=np.ones(n),
        session=1,
    )


@torch.no_grad()
def decoded(network: Poyo, *windows: PoyoWindow, query_s: float = 1.0) -> Tensor:
    answer: Tensor = network(batch_of(windows, np.full((len(windows), 1), query_s), 1.0))
    return answer[:, 0]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_decodes_what_torch_brain_was_recorded_to_decode(dtype: torch.dtype, atol: float) -> None:
    network = read_checkpoint(REFERENCE).to(dtype)
    recorded: dict[str, Any] = torch.load(REFERENCE, weights_only=True)["recorded"]
    windows = [
        PoyoWindow(
            units=np.arange(1, len(network.unit_emb.words) + 1),
            unit=unit.numpy(),
            t_s=t_s.numpy(),
            count=np.ones(len(unit)),
            session=1,
        )
        for unit, t_s in zip(recorded["unit"], recorded["t_s"], strict=True)
    ]
    assert [len(w.unit) for w in windows] == [0, 1, 60, 300]
    query_s = np.tile(recorded["query_s"].numpy(), (len(windows), 1))
    with torch.no_grad():
        found = network(batch_of(windows, query_s, 1.0))
    expected = recorded["answers"][str(dtype)]
    assert (expected[2] - expected[3]).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("config", "expected"), [(poyo_small(2), 1_254_018), (poyo_large(2), 11_717_378)]
)
def test_published_sizes(config: PoyoConfig, expected: int) -> None:
    network = Poyo(config, [], [])
    of_words = ("unit_emb.weight", "session_emb.weight")
    named = [p.numel() for name, p in network.named_parameters() if name not in of_words]
    assert sum(named) == expected


def test_padding_changes_nothing(network: Poyo) -> None:
    short, long = window(5), window(90, seed=1)
    together = decoded(network, short, long, window(0))
    for found, alone in zip(together, (short, long, window(0)), strict=True):
        torch.testing.assert_close(found, decoded(network, alone)[0], rtol=0, atol=1e-12)


def test_order_of_spikes_changes_nothing(network: Poyo) -> None:
    ordered = window()
    i = np.random.default_rng(3).permutation(len(ordered.unit))
    shuffled = replace(ordered, unit=ordered.unit[i], t_s=ordered.t_s[i])
    torch.testing.assert_close(
        decoded(network, shuffled), decoded(network, ordered), rtol=0, atol=1e-12
    )


def test_silent_unit_counts(network: Poyo) -> None:
    """It has START and END all the same: without them another value is decoded."""
    whole = window()
    fewer = replace(whole, units=whole.units[:-1])
    assert whole.unit.max() < N_UNITS - 2
    assert (decoded(network, whole) - decoded(network, fewer)).abs().max() > 1e-5


def test_each_part_of_a_token_counts(network: Poyo) -> None:
    one = window()
    later = replace(one, t_s=one.t_s * 0.9)
    other = replace(one, unit=one.unit[::-1].copy())
    expected = decoded(network, one)
    for changed in (later, other):
        assert (decoded(network, changed) - expected).abs().max() > 1e-4
    assert (decoded(network, one, query_s=0.4) - expected).abs().max() > 1e-4


def test_count_is_so_many_spikes(network: Poyo) -> None:
    one = window()
    twice = PoyoWindow(
        one.units, np.tile(one.unit, 2), np.tile(one.t_s, 2), np.tile(one.count, 2), 1
    )
    weighted = replace(one, count=2 * one.count)
    expected = decoded(network, twice)
    torch.testing.assert_close(decoded(network, weighted), expected, rtol=0, atol=1e-12)
    assert (decoded(network, one) - expected).abs().max() > 1e-4


def test_drops_only_in_training(network: Poyo) -> None:
    first, second = decoded(network, window()), decoded(network, window())
    assert torch.equal(first, second)
    network.train()
    first, second = decoded(network, window()), decoded(network, window())
    network.eval()
    assert not torch.equal(first, second)


def test_gradient_reaches_every_parameter_but_the_padding() -> None:
    network = random_network(tiny_config(), N_UNITS)
    network(batch_of([window(), window(3)], np.ones((2, 1)), 1.0)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    grad = network.unit_emb.weight.grad
    assert grad is not None
    assert torch.equal(grad[0], torch.zeros_like(grad[0]))


def test_learns_a_rate() -> None:
    """The decode follows how many of the spikes are of unit 0."""
    torch.manual_seed(0)
    network = Poyo(replace(tiny_config(), depth=1, emb_init_scale=0.5), words(N_UNITS), [SESSION])
    windows, share = [], torch.linspace(0.1, 0.9, 16)
    for i, wanted in enumerate(share.tolist()):
        one = window(60, seed=i)
        is_first = np.random.default_rng(i).random(60) < wanted
        windows.append(replace(one, unit=np.where(is_first, 0, 1 + one.unit % 4)))
    batch = batch_of(windows, np.ones((16, 1)), 1.0)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = (network(batch)[:, 0, 0] - share * 2 + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


def test_times_are_exact_to_the_microsecond() -> None:
    us = np.arange(4_000_001)
    assert np.array_equal(exact_s((us * 1e-6).astype(np.float32)), us * 1e-6)


def test_network_takes_its_own_words_only() -> None:
    network = random_network(tiny_config(), 3)
    other = Poyo(tiny_config(), list(reversed(words(3))), [SESSION])
    with pytest.raises(VocabularyError, match=r"unit_emb\.vocab holds other words"):
        other.load_state_dict(network.state_dict())


def test_vocabulary() -> None:
    vocabulary = Vocabulary(["a", "b"], 4, 1.0)
    assert vocabulary.index(["b", "a"]).tolist() == [2, 1]
    assert torch.equal(vocabulary.weight[0], torch.zeros(4))
    with pytest.raises(VocabularyError, match="has no c; it has 2 words: a, b"):
        vocabulary.index(["a", "c"])
    for words_of in (["a", "a"], ["NA"]):
        with pytest.raises(VocabularyError, match="some stand twice"):
            Vocabulary(words_of, 4, 1.0)


def test_arguments_of_torch_brain() -> None:
    config = from_torch_brain({"sequence_length": 2.0, "latent_step": 0.25, "depth": 3}, 5)
    assert config == PoyoConfig(sequence_s=2.0, latent_step_s=0.25, dim_out=5, depth=3)
    with pytest.raises(ValueError, match=r"unknown \['hop'\], lacking \['latent_step'\]"):
        from_torch_brain({"sequence_length": 2.0, "hop": 1}, 5)
