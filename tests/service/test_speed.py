"""How fast the parts of a beat are, as ratios to plain numpy in the same process.

Absolute times are nobody's to promise; that the graph keeps up with numpy, and the tokenizer leaves
a loop behind, is. Each side is the fastest of many turns, so that a busy machine does not tell.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.backends.onnxruntime_cpu import open_cpu
from export.bundle import DecoderBundle, open_bundle
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from service.bench.sender import unit_keys
from streams.clock import ThreadClock
from streams.messages import SpikeBatch, TokenWindow
from streams.spikes.tokenizer import Tokenizer
from tests.service.plain_step import PlainStep

pytestmark = pytest.mark.alone

N_TURNS, N_EACH = 30, 10
HOP_S = 0.02


def times_faster(ours: Callable[[], object], plain: Callable[[], object]) -> float:
    """Processor time of `plain` over that of `ours`, the fastest turn of each."""
    clock, taken_s = ThreadClock(), [[], []]
    for turn in range(2 * N_TURNS):
        run = (ours, plain)[turn % 2]
        t_s = clock.now()
        for _ in range(N_EACH):
            run()
        taken_s[turn % 2].append(clock.now() - t_s)
    return min(taken_s[1]) / min(taken_s[0])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """The shipped decoder's graph for 1,000 units."""
    return derive_bundle(
        open_bundle(bundle_path("shipped:demo")),
        tmp_path_factory.mktemp("speed") / Path("bundle"),
        unit_keys=unit_keys(1000),
        hop_s=HOP_S,
        bin_s=HOP_S,
    )


def window(n_tokens: int) -> TokenWindow:
    rng = np.random.default_rng(n_tokens)
    return TokenWindow(
        unit=rng.integers(0, 1000, n_tokens, dtype=np.int32),
        t_rel=np.sort(rng.uniform(0, HOP_S, n_tokens)).astype(np.float32),
        count=np.ones(n_tokens, np.float32),
        t_window=0.0,
    )


@pytest.mark.parametrize("n_tokens", [1, 80, 400, 1000])
def test_the_graph_decodes_what_plain_numpy_does(shipped: DecoderBundle, n_tokens: int) -> None:
    backend, plain = open_cpu(shipped), PlainStep(shipped)
    for _ in range(5):
        value = backend.step(window(n_tokens), 0.05)["velocity"]
        np.testing.assert_allclose(value, plain.step(window(n_tokens), 0.05), atol=1e-4)


@pytest.mark.parametrize("n_tokens", [80, 400])
def test_the_graph_keeps_up_with_plain_numpy(shipped: DecoderBundle, n_tokens: int) -> None:
    backend, plain, tokens = open_cpu(shipped), PlainStep(shipped), window(n_tokens)
    ratio = times_faster(lambda: backend.step(tokens, 0.0), lambda: plain.step(tokens, 0.0))
    assert ratio > 0.9


@pytest.mark.parametrize("n_tokens", [80, 400])
def test_numba_leaves_plain_numpy_behind(shipped: DecoderBundle, n_tokens: int) -> None:
    numba_backend = pytest.importorskip("export.backends.numba_cpu")
    backend, plain, tokens = numba_backend.open_cpu(shipped), PlainStep(shipped), window(n_tokens)
    for _ in range(5):
        value = backend.step(window(n_tokens), 0.05)["velocity"]
        np.testing.assert_allclose(value, plain.step(window(n_tokens), 0.05), atol=1e-4)
    ratio = times_faster(lambda: backend.step(tokens, 0.0), lambda: plain.step(tokens, 0.0))
    assert ratio > 1.5


def plain_cut(spikes: SpikeBatch, row_of: np.ndarray, end_us: int, bin_us: int) -> list[tuple]:
    """The tokens as a list comprehension makes them."""
    tokens = sorted(
        (int(t), int(row_of[unit]))
        for t, unit in zip(spikes.t_us, spikes.unit, strict=True)
        if end_us - bin_us < t <= end_us and row_of[unit] >= 0
    )
    return [(row, np.float32((t - end_us + bin_us) * 1e-6)) for t, row in tokens]


def test_the_tokenizer_is_far_faster_than_a_loop_and_says_the_same() -> None:
    rng, n = np.random.default_rng(0), 1000
    t_us = rng.choice(20_000, n, replace=False).astype(np.int64) + 1
    spikes = SpikeBatch(t_us, rng.integers(0, 1000, n, dtype=np.int32), np.ones(n, np.int32))
    row_of = np.arange(1000, dtype=np.int32)[::-1].copy()
    tokenizer = Tokenizer(20_000, row_of)
    tokens, _ = tokenizer.cut(spikes, 20_000, 0.02)
    plain = plain_cut(spikes, row_of, 20_000, 20_000)
    assert list(zip(tokens.unit.tolist(), tokens.t_rel, strict=True)) == plain
    ratio = times_faster(
        lambda: tokenizer.cut(spikes, 20_000, 0.02),
        lambda: plain_cut(spikes, row_of, 20_000, 20_000),
    )
    assert ratio > 10
