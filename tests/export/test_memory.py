"""A backend's memory, read and set in another of its kind: both go on alike, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from export.backends.table import BACKENDS, Backend, Remembers
from export.bundle import DecoderBundle
from streams.messages import TokenWindow
from tests.export.test_cuda_graphs import OPENERS

Open = Callable[[DecoderBundle], Backend]
CPU = ("onnxruntime-cpu", "numba-cpu", "torch")
OPEN: dict[str, Open] = {name: lambda bundle, n=name: BACKENDS[n](bundle, "fp32") for name in CPU}  # type: ignore[misc]
OPEN |= {f"{name} as on a GPU": opener for name, opener in OPENERS.items()}


def window(seed: int) -> TokenWindow:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 60))
    unit = np.sort(rng.integers(0, 150, n)).astype(np.int32)
    t_rel = np.sort(rng.random(n) * 0.02).astype(np.float32)
    return TokenWindow(unit, t_rel, np.ones(n, np.float32), 0.0)


def steps(backend: Backend, seeds: range) -> list[dict[str, bytes]]:
    found = (backend.step(window(seed), 0.0) for seed in seeds)
    return [{name: value.tobytes() for name, value in one.items()} for one in found]


@pytest.mark.parametrize("name", OPEN)
def test_it_goes_on_bit_for_bit(name: str, streaming_bundle: DecoderBundle) -> None:
    ours, other = OPEN[name](streaming_bundle), OPEN[name](streaming_bundle)
    for backend in (ours, other):
        backend.reset()
    assert isinstance(ours, Remembers)
    assert isinstance(other, Remembers)
    assert not any(array.any() for array in ours.memory().values())
    steps(ours, range(7))
    held = ours.memory()
    kept = {name: array.copy() for name, array in held.items()}
    wanted = steps(ours, range(7, 20))
    for name_of, array in held.items():  # what was read does not change
        assert array.tobytes() == kept[name_of].tobytes()
    steps(other, range(3))
    other.set_memory(kept)
    assert steps(other, range(7, 20)) == wanted
    assert steps(ours, range(7, 20)) != wanted
