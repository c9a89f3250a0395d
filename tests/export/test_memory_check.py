"""A bit flips in a decoder's memory: the check finds it, and nothing else."""

from __future__ import annotations

import select
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from export.backends.numba_cpu import NumbaBackend
from export.bundle import DecoderBundle, open_bundle
from export.choice.gate import open_one
from export.memory_check import SLICE_BYTES, HoldsArrays, MemoryCheck
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path

FOREVER_S = 10.0
NAMES = ("onnxruntime-cpu", "numba-cpu", "torch")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> DecoderBundle:
    """The shipped decoder's graph: all that a real one holds."""
    path = tmp_path_factory.mktemp("bundles") / "derived"
    keys = [f"u{i}" for i in range(20)]
    demo = open_bundle(bundle_path("shipped:demo"))
    derive_bundle(demo, path, unit_keys=keys, hop_s=0.02, bin_s=0.02, name="derived", seed=1)
    return open_bundle(path)


def bits(array: np.ndarray) -> list[tuple[int, int]]:
    """The first, the last and some other bits, as (byte, bit)."""
    rng = np.random.default_rng(0)
    some = [
        (int(i), int(b)) for i, b in zip(rng.integers(0, array.nbytes, 3), (3, 4, 5), strict=True)
    ]
    return [(0, 0), (array.nbytes - 1, 7), *some]


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_of_an_array_is_found(bundle: DecoderBundle, name: str) -> None:
    opened = open_one(bundle, name)
    check, backend = opened.memory, opened.backend
    assert check is not None
    assert isinstance(backend, HoldsArrays)
    assert check.whole() == ""  # the lead time is that of the timed runs by now
    assert check.n_bytes > sum(table.nbytes for table in bundle.tables.values())
    for held_as, array in backend.fixed_arrays().items():
        if not array.size:
            continue
        held = array.reshape(-1).view(np.uint8)
        for i_byte, i_bit in bits(array):
            held[i_byte] ^= 1 << i_bit
            # Two arrays may be one: the first is named.
            assert check.whole(), held_as
            held[i_byte] ^= 1 << i_bit
            check.found = ""
    assert check.whole() == ""


@pytest.mark.parametrize("name", NAMES)
def test_decoding_changes_nothing_that_is_checked(bundle: DecoderBundle, name: str) -> None:
    opened, record = open_one(bundle, name), bundle.parity()
    check = opened.memory
    assert check is not None
    for i in range(len(record)):
        opened.backend.step(record.window(i), float(record.lead_s[i]))
        assert check.whole() == ""
    opened.backend.reset()
    opened.backend.set_tables({k: 2 * v for k, v in bundle.tables.items()})
    assert check.whole() == ""  # other tables are new ones, not damaged ones


def test_the_probe_runs_beside_the_steps_and_changes_none(bundle: DecoderBundle) -> None:
    opened, alone = open_one(bundle, "onnxruntime-cpu"), open_one(bundle, "onnxruntime-cpu")
    check, record = opened.memory, bundle.parity()
    assert check is not None
    assert check.has_probe
    ended, found = threading.Event(), list[str]()

    def look() -> None:
        while not ended.is_set():
            found.append(check.whole())

    looking = threading.Thread(target=look)
    looking.start()
    for i in range(len(record)):
        window, lead_s = record.window(i), float(record.lead_s[i])
        told, expected = opened.backend.step(window, lead_s), alone.backend.step(window, lead_s)
        for output, values in expected.items():
            np.testing.assert_array_equal(told[output], values)
    ended.set()
    looking.join()
    assert set(found) == {""}


def test_weights_that_the_library_keeps_are_found_by_what_the_graph_says(
    bundle: DecoderBundle,
) -> None:
    opened = open_one(bundle, "onnxruntime-cpu")
    check = opened.memory
    assert check is not None
    # Another answer than the one at the gate is what a changed weight gives.
    check._answer = bytes([check._answer[0] ^ 1]) + check._answer[1:]
    assert check.whole() == "the graph's weights"


def test_a_slice_holds_the_interpreter_for_no_longer_than_a_beat_can_spare(
    bundle: DecoderBundle,
) -> None:
    """`crc32` lets the lock go, so that another thread counts on while a slice is summed."""
    array = np.zeros(16 * SLICE_BYTES, np.uint8)

    class Holder:
        def fixed_arrays(self) -> dict[str, np.ndarray]:
            return {"array": array}

    check, before = MemoryCheck(Holder(), bundle.parity), sys.getswitchinterval()
    ended, gaps = threading.Event(), [0.0]

    def sum_on() -> None:
        while not ended.is_set():
            check.whole()

    summing = threading.Thread(target=sum_on)
    sys.setswitchinterval(FOREVER_S)  # nobody is made to let go: the lock comes only if it is left
    try:
        summing.start()
        for _ in range(200):
            t_s = time.monotonic()
            select.select([], [], [], 0)  # lets go of the lock
            gaps.append(time.monotonic() - t_s)
    finally:
        ended.set()
        sys.setswitchinterval(before)
        summing.join()
    assert max(gaps) < FOREVER_S


def test_a_lead_that_changes_is_no_damage(bundle: DecoderBundle, tmp_path: Path) -> None:
    opened = open_one(bundle, "numba-cpu")
    assert isinstance(opened.backend, NumbaBackend)
    check, record = opened.memory, bundle.parity()
    assert check is not None
    for lead_s in (0.0, 0.05, 0.0):
        opened.backend.step(record.window(1), lead_s)
        assert check.whole() == ""
    beside = opened.backend.fixed_arrays()["beside"].view(np.uint8)
    beside[3] ^= 4
    assert check.whole() == "beside"


@pytest.mark.parametrize("name", NAMES[:2])
def test_other_tables_are_no_damage(bundle: DecoderBundle, name: str) -> None:
    """The probe goes on with those that it began with, which nobody else holds any more."""
    backend = open_one(bundle, name).backend
    memory = MemoryCheck(backend, bundle.parity)
    for i in range(3):
        backend.set_tables({n: t * np.float32(2.0 + i) for n, t in bundle.tables.items()})
        # Whoever takes the memory that they lay in writes to it.
        _ = [np.full_like(table, np.nan) for table in bundle.tables.values() for _ in range(4)]
        assert memory.whole() == ""
