"""Single steps of a decoder, timed; for `bench decode` and `bench gpu`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from export.backends.table import Backend
from export.bundle import DecoderBundle
from streams.clock import MonotonicClock
from streams.messages import TokenWindow

N_WARM, N_RUNS, N_LEAST = 100, 2_000, 10
WARM_S, LONG_S = 1.0, 10.0


def without_garbage_collection() -> None:
    """Switch the collector off for the rest of the process, as the daemon does."""
    gc.collect()
    gc.freeze()
    gc.disable()


def random_window(bundle: DecoderBundle, n_tokens: int) -> TokenWindow:
    """Draw so many spikes of the bundle's units, anywhere in a bin."""
    rng = np.random.default_rng(0)
    return TokenWindow(
        unit=rng.integers(0, len(bundle.row_of_key), n_tokens, dtype=np.int32),
        t_rel=np.sort(rng.uniform(0, bundle.manifest.bin_s, n_tokens)).astype(np.float32),
        count=np.ones(n_tokens, np.float32),
        t_window=0.0,
    )


def step_ms(backend: Backend, window: TokenWindow, lead_s: float) -> list[float]:
    """Milliseconds of each step, once the backend is warm."""

    def step() -> None:
        backend.step(window, lead_s)

    list(times_ms(step, N_WARM, WARM_S))
    return list(times_ms(step, N_RUNS, LONG_S))


def times_ms(run: Callable[[], None], n_runs: int, long_s: float) -> Iterator[float]:
    """Milliseconds of each run: `n_runs`, or those that fit into `long_s`, but a few at least."""
    clock = MonotonicClock()
    t_end_s = clock.now() + long_s
    for i in range(n_runs):
        t_start_s = clock.now()
        if i >= N_LEAST and t_start_s > t_end_s:
            return
        run()
        yield 1e3 * (clock.now() - t_start_s)


def print_rows(
    title: str, names: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Print a table: columns of names to the left, columns of numbers to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
