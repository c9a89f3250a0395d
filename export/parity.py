"""The parity record: some seconds of tokens with the outputs that belong to them; its replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from export.errors import BundleError
from streams.messages import Float32s, Int32s, Int64s, TokenWindow

OUTPUT_PREFIX = "out."


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """Inputs and outputs of consecutive beats, from zero memory.

    Attributes:
        offsets: (n_beats + 1,) int64; beat i holds tokens offsets[i]:offsets[i + 1].
        unit: (N,) int32 rows, all beats end to end.
        t_rel: (N,) float32 seconds since the start of the bin.
        count: (N,) float32.
        lead_s: (n_beats,) float32.
        outputs: per output, (n_beats, dims) float32, physical units.
    """

    offsets: Int64s
    unit: Int32s
    t_rel: Float32s
    count: Float32s
    lead_s: Float32s
    outputs: Mapping[str, Float32s]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def window(self, i_beat: int) -> TokenWindow:
        """The tokens of beat `i_beat`: views of the record."""
        held = slice(int(self.offsets[i_beat]), int(self.offsets[i_beat + 1]))
        return TokenWindow(self.unit[held], self.t_rel[held], self.count[held], t_window=0.0)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays stored in `parity.safetensors`."""
        outputs = {OUTPUT_PREFIX + name: values for name, values in self.outputs.items()}
        own = {name: getattr(self, name) for name in _DTYPES}
        return {name: np.ascontiguousarray(value) for name, value in (own | outputs).items()}


_DTYPES: dict[str, type[np.generic]] = {
    "offsets": np.int64,
    "unit": np.int32,
    "t_rel": np.float32,
    "count": np.float32,
    "lead_s": np.float32,
}


def record_from_tensors(tensors: Mapping[str, np.ndarray], where: str) -> ParityRecord:
    """Read a record.

    Raises:
        BundleError: an array is missing, of another type, or the lengths do not fit together.
    """
    for name, dtype in _DTYPES.items():
        if name not in tensors or tensors[name].dtype != dtype or tensors[name].ndim != 1:
            raise BundleError(
                f"{where}: `{name}` must be a list of {np.dtype(dtype).name}; "
                "export the bundle again"
            )
    outputs = {
        name.removeprefix(OUTPUT_PREFIX): values
        for name, values in tensors.items()
        if name.startswith(OUTPUT_PREFIX)
    }
    record = ParityRecord(**{name: tensors[name] for name in _DTYPES}, outputs=outputs)
    if not _fits_together(record):
        raise BundleError(f"{where}: its lengths do not fit together; export the bundle again")
    return record


def _fits_together(record: ParityRecord) -> bool:
    n_beats, n_tokens = len(record), len(record.unit)
    offsets = record.offsets
    return (
        n_beats >= 1
        and offsets[0] == 0
        and offsets[-1] == n_tokens == len(record.t_rel) == len(record.count)
        and bool((np.diff(offsets) >= 0).all())
        and len(record.lead_s) == n_beats
        and all(len(values) == n_beats for values in record.outputs.values())
    )


def random_tokens(
    rng: np.random.Generator,
    *,
    n_rows: int,
    n_beats: int,
    bin_s: float,
    n_most: int,
    leads_s: tuple[float, float] = (0.0, 0.0),
    mean_hz: float = 20.0,
) -> ParityRecord:
    """Tokens of units that fire at random, without outputs; the first beat is empty.

    Args:
        rng: source of chance.
        n_rows: rows of the table.
        n_beats: beats.
        bin_s: length of a bin, seconds.
        n_most: tokens of a beat: the largest bucket, for backends of static shapes run no more.
        leads_s: the least, which the first beat asks for, and the largest, at which they end.
        mean_hz: rate of a unit.
    """
    n_tokens = np.minimum(rng.poisson(n_rows * mean_hz * bin_s, n_beats), n_most)
    n_tokens[0] = 0
    offsets = np.concatenate(([0], np.cumsum(n_tokens))).astype(np.int64)
    beat = np.repeat(np.arange(n_beats), n_tokens)
    t_rel = (rng.uniform(0.0, bin_s, len(beat))).astype(np.float32)
    order = np.lexsort((t_rel, beat))
    return ParityRecord(
        offsets=offsets,
        unit=rng.integers(0, n_rows, len(beat)).astype(np.int32),
        t_rel=t_rel[order],
        count=np.ones(len(beat), np.float32),
        lead_s=np.linspace(*leads_s, n_beats).astype(np.float32),
        outputs={},
    )


class Steps(Protocol):
    """The part of a backend that a replay needs."""

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin."""

    def reset(self) -> None:
        """Zero the memory."""


def replay(backend: Steps, tokens: ParityRecord) -> ParityRecord:
    """The record's tokens with the outputs that `backend` gives for them from zero memory."""
    backend.reset()
    beats: list[dict[str, Float32s]] = []
    for i_beat in range(len(tokens)):
        values = backend.step(tokens.window(i_beat), float(tokens.lead_s[i_beat]))
        beats.append({name: value.copy() for name, value in values.items()})
    outputs = {name: np.stack([beat[name] for beat in beats]) for name in beats[0]}
    return replace(tokens, outputs=outputs)


def largest_error(backend: Steps, record: ParityRecord) -> float:
    """Replay the record.

    Returns:
        The largest absolute difference over beats and outputs, physical units; inf where a value
        is not finite.
    """
    found = replay(backend, record).outputs
    errors = [np.abs(found[name] - values).ravel() for name, values in record.outputs.items()]
    worst = float(np.concatenate(errors).max())
    return worst if np.isfinite(worst) else float("inf")
