"""Shape of the streaming decoder.

This module does not import torch, because adaptation without torch reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

N_MOMENTS = 8
"""Points in a bin at which its mean over rotary time is taken."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output of the network.

    Attributes:
        name: as on the wire.
        dims: its vector's length.
        classes: True for a discrete output, whose vector holds class probabilities.
    """

    name: str
    dims: int
    classes: bool = False


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """Shape of a `StreamingDecoder`; JSON-serialisable through `to_dict` and `from_dict`.

    Attributes:
        outputs: in the order of the readout.
        bin_s: bin length, seconds; scales the rotary frequencies.
        n_frequencies: rotary frequencies inside the bin; 0 for sources of counts.
        n_latents: attention pools per bin.
        d_unit: embedding width.
        d_value: folded value width.
        d_model: width between encoder and memory.
        d_memory: GRU width.
        d_readout: readout and session vector width.
        logit_cap: bound on a logit's part that does not depend on time.
        time_cap: bound on each coefficient of time.
        sink: initial mass of the sink, in spikes.
        taps_s: time constants for the linear filter beside the network; none: there is no filter,
            and drift is not followed (see `step`).
        serves_to_s: leads up to which that filter counts in full (see `linear_filter`).
    """

    outputs: tuple[OutputSpec, ...]
    bin_s: float
    n_frequencies: int = 3
    n_latents: int = 8
    d_unit: int = 64
    d_value: int = 64
    d_model: int = 128
    d_memory: int = 256
    d_readout: int = 64
    logit_cap: float = 4.0
    time_cap: float = 1.0
    sink: float = 8.0
    taps_s: tuple[float, ...] = ()
    serves_to_s: float = 0.0

    @property
    def n_basis(self) -> int:
        """Basis functions per logit: 1, and cosine and sine per frequency."""
        return 1 + 2 * self.n_frequencies

    @property
    def table_width(self) -> int:
        """Columns per folded row: value, a one that sums the weights, logit coefficients."""
        return self.d_value + 1 + self.n_latents * self.n_basis

    @property
    def n_pooled(self) -> int:
        """Length of the latents, end to end."""
        return self.n_latents * (self.d_value + 1)

    @property
    def n_sums(self) -> int:
        """Leaky sums in the linear filter: one for each time constant and dimension."""
        return len(self.taps_s) * self.n_dims

    @property
    def n_dims(self) -> int:
        """Dimensions in all outputs together."""
        return sum(output.dims for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types."""
        outputs = [asdict(output) for output in self.outputs]
        return {**asdict(self), "outputs": outputs, "taps_s": list(self.taps_s)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StreamingConfig:
        """Read what `to_dict` gives."""
        outputs = tuple(OutputSpec(**output) for output in fields["outputs"])
        taps_s = tuple(fields.get("taps_s", ()))
        return cls(**{**fields, "outputs": outputs, "taps_s": taps_s})
