"""Check of a decoder in memory: a bit that flips there changes decodes, and nothing else tells.

Arrays are held to the sums that they had when the decoder passed the gate. Where a library keeps
weights for itself, its graph must answer fixed tokens as it did then, bit for bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from export.errors import BackendError
from export.parity import ParityRecord

SLICE_BYTES = 2**18
"""Summed in one call, in 40 us; `crc32` lets go of the interpreter's lock meanwhile."""

Arrays = Callable[[], Mapping[str, np.ndarray]]
Probe = Callable[[], bytes]


@runtime_checkable
class HoldsArrays(Protocol):
    """A backend whose weights or tables lie in arrays of this process."""

    def fixed_arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays that a step reads and nothing writes to; new content comes as another array."""


@runtime_checkable
class MakesProbe(Protocol):
    """A backend whose library keeps the weights for itself."""

    def make_probe(self, tokens: ParityRecord) -> Probe:
        """Return a run of a few of these beats, beside the steps and from any thread.

        It returns all answers as bytes, the same ones as long as the weights are the same.
        """


class MemoryCheck:
    """The sums of a decoder that is in order; what differs from them later is damaged.

    One thread at a time may use it.

    Attributes:
        found: name of what is damaged; "" while nothing is.

    Args:
        backend: that has just passed the gate.
        tokens: for its probe.
    """

    def __init__(self, backend: object, tokens: Callable[[], ParityRecord]) -> None:
        self.found = ""
        self._sources: list[Arrays] = []
        self._sums: dict[str, tuple[np.ndarray, list[int]]] = {}
        self._probe: Probe | None = None
        if isinstance(backend, HoldsArrays):
            self.watch(backend.fixed_arrays)
        if isinstance(backend, MakesProbe):
            self._probe = backend.make_probe(tokens())
            self._answer = self._probe()

    @property
    def n_bytes(self) -> int:
        """Bytes that are summed."""
        return sum(array.nbytes for array, _ in self._sums.values())

    @property
    def has_probe(self) -> bool:
        """True if the graph is run, too."""
        return self._probe is not None

    def watch(self, arrays: Arrays) -> None:
        """Hold these arrays to the sums that they have now, too."""
        self._sources.append(arrays)
        for name, array in arrays().items():
            self._sums[name] = (array, list(_sums(array)))

    def slices(self) -> Iterator[int]:
        """Check all once, and yield the bytes of each slice after it; ends once one is damaged."""
        for arrays in self._sources:
            for name, array in arrays().items():
                before = self._sums.get(name)
                if before is None or before[0] is not array:
                    self._sums[name] = (array, list(_sums(array)))
                    continue
                for i, (now, sum_) in enumerate(zip(_sums(array), before[1], strict=True)):
                    if now != sum_:
                        self.found = name
                        return
                    yield min(SLICE_BYTES, array.nbytes - i * SLICE_BYTES)
        if self._probe is not None:
            try:
                is_same = self._probe() == self._answer
            except BackendError:
                is_same = False
            if not is_same:
                self.found = "the graph's weights"

    def whole(self) -> str:
        """Check all at once; return `found`."""
        for _ in self.slices():
            pass
        return self.found


def _sums(array: np.ndarray) -> Iterator[int]:
    if not array.size:
        return
    held = array.reshape(-1).view(np.uint8).data
    for i in range(0, len(held), SLICE_BYTES):
        yield zlib.crc32(held[i : i + SLICE_BYTES])
