"""The linear filter beside the network: leaky sums, bounded, of the present, silent if not used."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from decoders.streaming.linear_filter import (  # noqa: E402
    FADES_OVER_S,
    LARGEST,
    SERVES_TO_S,
    TAPS_S,
    counts_at,
)
from decoders.streaming.step import StepModule, unadapted  # noqa: E402
from tests.export.untrained import CONFIG, KEYS, random_filter  # noqa: E402

N_VELOCITY = 2


class Bins:
    """An untrained step, run bin by bin with some filter's tables."""

    def __init__(self, tables: dict[str, torch.Tensor] | None) -> None:
        torch.manual_seed(0)
        self.config = CONFIG if tables else replace(CONFIG, taps_s=())
        self.step = StepModule(self.config).eval()
        self.step.decoder.scale[:N_VELOCITY] = 20.0
        self.table = self.step.decoder.encoder.fold(torch.randn(len(KEYS), CONFIG.d_unit))
        self.tables = tables
        sizes = (CONFIG.d_memory, CONFIG.n_sums, CONFIG.n_pooled + CONFIG.n_sums)
        self.memory, *self.beside = (torch.zeros(1, size) for size in sizes)

    @torch.no_grad()
    def run(self, unit: list[int], count: list[float], lead_s: float = 0.0) -> np.ndarray:
        """Velocity of the next bin."""
        tokens = torch.tensor(unit, dtype=torch.int32), torch.zeros(len(unit)), torch.tensor(count)
        fixed = torch.zeros(CONFIG.d_readout), torch.full((CONFIG.n_pooled,), 0.02)
        beside = [*self.tables.values(), *self.beside] if self.tables else []
        lead = torch.tensor([lead_s])
        found = self.step(*tokens, self.table, *fixed, lead, self.memory, *beside)
        self.memory, *self.beside = found[2:]
        velocity: np.ndarray = found[0].numpy()
        return velocity


def counting(rows: float = 0.5) -> dict[str, torch.Tensor]:
    """A filter that counts, its rows times `rows / 0.5`."""
    held = random_filter(np.random.default_rng(1), len(KEYS), CONFIG)
    held["filter_rows"] *= rows / 0.5
    held["filter_centre"] *= rows / 0.5
    tables = {name: torch.from_numpy(value) for name, value in held.items()}
    return unadapted(len(KEYS), CONFIG) | tables


def test_the_answer_is_the_mean_of_both() -> None:
    tables, plain = counting(), Bins(None)
    blended = Bins(tables)
    rows, centre = tables["filter_rows"].numpy(), tables["filter_centre"].numpy()
    share, rest = tables["blend"].numpy()[:, :N_VELOCITY]
    decay = np.repeat([math.exp(-0.02 / tap_s) if tap_s else 0.0 for tap_s in TAPS_S], 6)
    sums = np.zeros(len(centre))
    for unit, count in (([1, 4], [1.0, 2.0]), ([], []), ([9, 9, 2], [1.0, 1.0, 3.0])):
        added = np.array(count) @ rows[unit] - centre if unit else -centre
        sums = decay * sums + (1.0 - decay) * added
        told = sums.reshape(len(TAPS_S), -1).sum(axis=0)[:N_VELOCITY]
        wanted = (1.0 - share) * plain.run(unit, count) + share * rest + told
        np.testing.assert_allclose(blended.run(unit, count), wanted, rtol=1e-4, atol=1e-4)


def test_one_that_does_not_count_changes_nothing() -> None:
    plain, silent = Bins(None), Bins(unadapted(len(KEYS), CONFIG))
    for unit in ([1, 2, 3], [], [7]):
        count = [1.0] * len(unit)
        np.testing.assert_array_equal(plain.run(unit, count), silent.run(unit, count))


def test_a_burst_moves_the_answer_by_no_more_than_its_bound() -> None:
    tables, plain = counting(rows=50.0), Bins(None)
    blended, every = Bins(tables), list(range(len(KEYS)))
    share, rest = tables["blend"].numpy()[:, :N_VELOCITY]
    network = plain.run(every, [50.0] * len(every))
    away = blended.run(every, [50.0] * len(every)) - ((1.0 - share) * network + share * rest)
    np.testing.assert_allclose(np.abs(away), LARGEST * 20.0, rtol=1e-5)


def test_it_counts_in_full_a_little_ahead_and_not_at_all_far_ahead() -> None:
    tables = counting()
    share, rest = tables["blend"].numpy()[:, :N_VELOCITY]
    told = Bins(tables).run([1, 4], [1.0, 2.0]) - (
        (1.0 - share) * Bins(None).run([1, 4], [1.0, 2.0]) + share * rest
    )
    for lead_s, counts in (
        (0.5 * SERVES_TO_S, 1.0),
        (-SERVES_TO_S, 1.0),
        (SERVES_TO_S + 0.5 * FADES_OVER_S, 0.5),
        (SERVES_TO_S + FADES_OVER_S, 0.0),
        (4.0 * SERVES_TO_S, 0.0),
    ):
        network = Bins(None).run([1, 4], [1.0, 2.0], lead_s)
        wanted = network + counts * (share * (rest - network) + told)
        found = Bins(tables).run([1, 4], [1.0, 2.0], lead_s)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        assert counts_at(lead_s, SERVES_TO_S) == pytest.approx(counts)


def test_its_shape_goes_through_json() -> None:
    assert type(CONFIG).from_dict(CONFIG.to_dict()) == CONFIG
    held = CONFIG.to_dict()
    older = {name: held[name] for name in held if name not in ("taps_s", "serves_to_s")}
    assert type(CONFIG).from_dict(older).n_sums == 0
