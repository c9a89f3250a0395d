"""What is tried next: Optuna's choice among what was not tried before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Choice = dict[str, Any]
N_DRAWS = 20
"""After so many draws that were tried before, one is drawn of those that were not."""


class Draws:
    """Draws choices by TPE over accuracy and time, none of them twice.

    Args:
        space: values of each parameter.
        first: drawn first; its values are in the space.
        seed: of the search.
    """

    def __init__(self, space: Mapping[str, Sequence[Any]], first: Choice, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        self._study.enqueue_trial({name: first[name] for name in space})
        self._failed = optuna.trial.TrialState.FAIL
        self._space = space
        self._chance = np.random.default_rng(seed)
        self._drawn: set[tuple[Any, ...]] = set()

    def __iter__(self) -> Iterator[tuple[Any, Choice]]:
        """Yield a trial, to be told of, with its choice, until all were drawn."""
        grid = list(itertools.product(*self._space.values()))
        while left := [one for one in grid if one not in self._drawn]:
            trial, choice = self._ask()
            if tuple(choice.values()) in self._drawn:
                other = left[self._chance.integers(len(left))]
                self._study.enqueue_trial(dict(zip(self._space, other, strict=True)))
                trial, choice = self._ask()
            self._drawn.add(tuple(choice.values()))
            yield trial, choice

    def tell(self, trial: Any, r2: float, step_ms: float) -> None:
        """Let the search learn what came of a trial."""
        self._study.tell(trial, [r2, step_ms])

    def fail(self, trial: Any) -> None:
        """Let the search know that nothing came of a trial."""
        self._study.tell(trial, state=self._failed)

    def _ask(self) -> tuple[Any, Choice]:
        """Ask until something is new, at most `N_DRAWS` times."""
        for i in range(N_DRAWS):
            trial = self._study.ask()
            choice = {
                name: trial.suggest_categorical(name, values)
                for name, values in self._space.items()
            }
            if tuple(choice.values()) not in self._drawn or i == N_DRAWS - 1:
                break
            self.fail(trial)  # a repeat counts for nothing
        return trial, choice
