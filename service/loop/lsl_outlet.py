"""The decodes as an LSL stream, so that LabRecorder keeps them beside everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from export.manifest import Output
from service.loop.validity import REASONS
from streams.lsl.outlets import ValuesOutlet
from streams.wire.schema import Decode


class DecodeOutlet:
    """Publishes each decode: its outputs, then `validity`, `seq` and `beat`, stamped `t_window`.

    Args:
        name: the stream's.
        outputs: the active decoder's, and those of its successors.
        simulated: the spikes are no person's; the stream's description says so.
    """

    def __init__(self, name: str, outputs: Sequence[Output], *, simulated: bool) -> None:
        self._outputs = outputs
        labels = [
            f"{output.name}_{i}" if output.dims > 1 else output.name
            for output in outputs
            for i in range(output.dims)
        ]
        self._outlet = ValuesOutlet(
            name, "Decoder", f"spikeloop-{name}", [*labels, "validity", "seq", "beat"],
            simulated=simulated,
        )  # fmt: skip

    def push(self, decode: Decode) -> None:
        """Publish one; NaN for null."""
        values: list[float] = []
        for output in self._outputs:
            value = decode.value[output.name]
            values += (
                [math.nan] * output.dims
                if value is None
                else [math.nan if v is None else v for v in value]
            )
        validity = REASONS[decode.reason]
        self._outlet.push([*values, float(validity), decode.seq, decode.beat], decode.t_window)

    def close(self) -> None:
        """Take the stream off the network."""
        self._outlet.close()
