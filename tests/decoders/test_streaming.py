"""The network: one bin at a time equals whole windows, and tokens mean what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric

from decoders.streaming.shape import OutputSpec, StreamingConfig
from decoders.streaming.step import StepModule
from decoders.streaming.trainer import Trainer
from decoders.training.recordings import record
from tests.decoders.sessions import small_config, tuned_session

SHAPE = StreamingConfig(
    outputs=(OutputSpec("velocity", 2), OutputSpec("phase", 3, classes=True)),
    bin_s=0.02,
    n_latents=3,
    d_unit=8,
    d_value=6,
    d_model=12,
    d_memory=16,
    d_readout=10,
)


def random_step(shape: StreamingConfig = SHAPE) -> tuple[StepModule, torch.Tensor]:
    """A network with random weights and a table of 5 rows."""
    torch.manual_seed(3)
    step = StepModule(shape).eval()
    return step, step.decoder.encoder.fold(torch.randn(5, shape.d_unit)).detach()


def run(
    step: StepModule, table: torch.Tensor, unit: list[int], t_rel: list[float], count: list[float]
) -> list[np.ndarray]:
    """One bin from a memory that is not zero."""
    with torch.no_grad():
        values = step(
            torch.tensor(unit, dtype=torch.int32),
            torch.tensor(t_rel, dtype=torch.float32),
            torch.tensor(count, dtype=torch.float32),
            table,
            torch.full((step.decoder.config.d_readout,), 0.1),
            torch.full((step.decoder.config.n_pooled,), 0.02),
            torch.tensor([0.05]),
            torch.full((1, step.decoder.config.d_memory), 0.2),
        )
    return [value.numpy() for value in values]


def assert_same(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@given(
    tokens=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 200)), min_size=2, max_size=20),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_the_order_of_tokens_leaves_no_trace(tokens: list[tuple[int, int]], seed: int) -> None:
    step, table = random_step()
    shuffled = [tokens[i] for i in np.random.default_rng(seed).permutation(len(tokens))]
    runs = [
        run(step, table, [u for u, _ in order], [t * 1e-4 for _, t in order], [1.0] * len(order))
        for order in (tokens, shuffled)
    ]
    assert_same(*runs)


def test_a_count_is_that_many_tokens() -> None:
    step, table = random_step()
    assert_same(
        run(step, table, [1, 2], [0.01, 0.004], [3.0, 1.0]),
        run(step, table, [1, 1, 1, 2], [0.01, 0.01, 0.01, 0.004], [1.0] * 4),
    )


def test_padding_changes_nothing() -> None:
    step, table = random_step()
    assert_same(
        run(step, table, [1, 2], [0.01, 0.004], [1.0, 1.0]),
        run(step, table, [1, 2, 0, 4], [0.01, 0.004, 0.0, 0.02], [1.0, 1.0, 0.0, 0.0]),
    )


def test_an_empty_bin_is_defined_and_differs_from_a_full_one() -> None:
    step, table = random_step()
    empty, full = run(step, table, [], [], []), run(step, table, [1], [0.01], [5.0])
    assert all(np.isfinite(value).all() for value in empty)
    assert np.abs(empty[0] - full[0]).max() > 1e-6


def test_the_rate_is_visible() -> None:
    """The same mixture of units at twice the count is not the same to a latent."""
    step, table = random_step()
    once, twice = run(step, table, [1], [0.01], [1.0]), run(step, table, [1], [0.01], [2.0])
    assert np.abs(once[0] - twice[0]).max() > 1e-6


def test_time_inside_the_bin_counts_only_with_frequencies() -> None:
    step, table = random_step()
    early, late = (run(step, table, [1, 3], [t, 0.01], [1.0, 1.0]) for t in (0.001, 0.019))
    assert np.abs(early[0] - late[0]).max() > 1e-6
    fields = SHAPE.to_dict() | {"n_frequencies": 0}
    step, table = random_step(StreamingConfig.from_dict(fields))
    early, late = (run(step, table, [1, 3], [t, 0.01], [1.0, 1.0]) for t in (0.001, 0.019))
    assert_same(early, late)


def test_logits_are_bounded_whatever_the_embedding() -> None:
    encoder = StepModule(SHAPE).decoder.encoder
    rows = encoder.fold(torch.randn(50, SHAPE.d_unit) * 1e4)
    rows = rows[:, SHAPE.d_value + 1 :]
    weights = encoder.weights(rows, torch.rand(50) * SHAPE.bin_s, torch.ones(50))
    n_time = 2 * SHAPE.n_frequencies
    bound = SHAPE.logit_cap + n_time * SHAPE.time_cap
    assert weights.log().abs().max() <= bound
    assert weights.log().abs().max() > SHAPE.logit_cap / 2


@pytest.mark.parametrize("n_frequencies", [0, 3])
def test_the_centre_is_the_mean_bin(n_frequencies: int) -> None:
    """Sums over many random bins come to the sums of the mean bin."""
    shape = StreamingConfig.from_dict(SHAPE.to_dict() | {"n_frequencies": n_frequencies})
    step, table = random_step(shape)
    encoder, rng = step.decoder.encoder, np.random.default_rng(1)
    spikes_per_bin = np.array([0.5, 2.0, 0.0, 5.0, 1.0])
    n_bins = 20_000
    unit = np.repeat(np.arange(5), rng.poisson(spikes_per_bin * n_bins))
    t_rel = torch.from_numpy(rng.uniform(0.0, shape.bin_s, len(unit))).float()
    rows = table[torch.from_numpy(unit)]
    coefficients = rows[:, shape.d_value + 1 :]
    weights = encoder.weights(coefficients, t_rel, torch.ones(len(unit))) / n_bins
    mean_sums = weights.t() @ rows[:, : shape.d_value + 1]
    centre = encoder.centre(table, torch.from_numpy(spikes_per_bin).float())
    torch.testing.assert_close(encoder.pool(mean_sums), centre, atol=5e-3, rtol=0.0)


def test_probabilities_sum_to_one() -> None:
    step, table = random_step()
    assert run(step, table, [1], [0.01], [1.0])[1].sum() == pytest.approx(1.0, abs=1e-6)


def test_config_survives_json() -> None:
    assert StreamingConfig.from_dict(SHAPE.to_dict()) == SHAPE


@pytest.mark.parametrize("rotary", [True, False])
def test_bin_by_bin_equals_whole_windows(rotary: bool) -> None:
    """Training's parallel path and the exported step are the same network."""
    config = small_config(beat={"rotary": rotary})
    recording = record(tuned_session(), config)
    trainer = Trainer(config, [recording], Fabric(accelerator="cpu"))
    for _ in range(3):
        trainer.step()
    n_bins = 120
    windows = trainer.decode(0, 0, n_bins)
    average = trainer.learner.average
    step = StepModule(average.decoder.config).eval()
    step.decoder.load_state_dict(average.decoder.state_dict())
    memory = torch.zeros(1, config.network.d_memory)
    tables = average.bundle_tables(0, range(8), range(8))
    tokens = recording.tokens
    for i in range(n_bins):
        part = slice(tokens.offsets[i], tokens.offsets[i + 1])
        with torch.no_grad():
            velocity, phase, memory = step(
                torch.from_numpy(tokens.unit[part]),
                torch.from_numpy(tokens.t_rel[part]),
                torch.from_numpy(tokens.count[part]),
                tables["table"],
                tables["session"],
                tables["centre"],
                torch.zeros(1),
                memory,
            )
        np.testing.assert_allclose(velocity, windows[i, :2], atol=2e-4)
        expected = np.exp(windows[i, 2:]) / np.exp(windows[i, 2:]).sum()
        np.testing.assert_allclose(phase, expected, atol=2e-4)
