"""An ezmsg pipeline: LSL inlet, counts in bins, a network by ezmsg-learn's torch unit, LSL outlet.

Run by `python -m benchmarks.peers` in an environment of its own; it uses nothing of spikeloop. All
units share one process, which is the faster way to run them.
"""

import argparse
from collections.abc import AsyncGenerator

import ezmsg.core as ez
import numpy as np
import pylsl
import torch
from ezmsg.learn.process.torch import TorchSimpleSettings, TorchSimpleUnit
from ezmsg.lsl.inlet import LSLInfo, LSLInletSettings, LSLInletUnit
from ezmsg.lsl.outlet import LSLOutletSettings, LSLOutletUnit
from ezmsg.util.messages.axisarray import AxisArray


class BinSettings(ez.Settings):
    """How spikes are binned."""

    n_units: int
    hop_s: float


class BinState(ez.State):
    """The bin that fills."""

    edge: float | None = None
    counts: np.ndarray | None = None


class BinSpikes(ez.Unit):
    """Samples `[channel, unit, seq]` become counts per channel and bin, by their stamps."""

    SETTINGS = BinSettings
    STATE = BinState
    INPUT_SIGNAL = ez.InputStream(AxisArray)
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    async def initialize(self) -> None:
        """Begin with an empty bin."""
        labels = np.array([f"ch{i + 1}" for i in range(self.SETTINGS.n_units)])
        self.ch_axis = AxisArray.CoordinateAxis(data=labels, dims=["ch"])
        self.STATE.counts = np.zeros((1, self.SETTINGS.n_units), np.float32)

    @ez.subscriber(INPUT_SIGNAL)
    @ez.publisher(OUTPUT_SIGNAL)
    async def on_message(self, message: AxisArray) -> AsyncGenerator:
        """Send each bin that a later stamp has ended."""
        t, channel = message.axes["time"].data, np.asarray(message.data)[:, 0]
        hop_s, state = self.SETTINGS.hop_s, self.STATE
        if state.edge is None:
            state.edge = (np.floor(t[0] / hop_s) + 1) * hop_s
        while len(t):
            inside = (t <= state.edge) & (channel > 0)
            np.add.at(state.counts[0], channel[inside] - 1, 1)
            if t[-1] <= state.edge:
                break
            yield self.OUTPUT_SIGNAL, self._message(state.counts, state.edge)
            later = t > state.edge
            channel, t = channel[later], t[later]
            state.counts = np.zeros_like(state.counts)
            state.edge += hop_s

    def _message(self, counts: np.ndarray, edge: float) -> AxisArray:
        time_axis = AxisArray.CoordinateAxis(data=np.array([edge]), dims=["time"], unit="s")
        axes = {"time": time_axis, "ch": self.ch_axis}
        return AxisArray(counts, ["time", "ch"], axes, key="counts", stream_dim="time")


class Pipeline(ez.Collection):
    """Inlet -> bins -> network -> outlet."""

    INLET, BINS, NETWORK, OUTLET = LSLInletUnit(), BinSpikes(), TorchSimpleUnit(), LSLOutletUnit()

    def __init__(self, stream: str, out: str, n_units: int, hop_s: float) -> None:
        super().__init__()
        self.arguments = stream, out, n_units, hop_s

    def configure(self) -> None:
        """Give each unit its settings."""
        stream, out, n_units, hop_s = self.arguments
        self.INLET.apply_settings(
            LSLInletSettings(
                info=LSLInfo(name=stream, type="Spikes"),
                use_lsl_clock=True,
                processing_flags=pylsl.proc_none,
            )
        )
        self.BINS.apply_settings(BinSettings(n_units, hop_s))
        self.NETWORK.apply_settings(
            TorchSimpleSettings(
                model_class="ezmsg.learn.model.mlp.MLP",
                device="cpu",
                model_kwargs={
                    "hidden_size": [256, 256],
                    "activation_layer": "torch.nn.ReLU",
                    "output_heads": 2,
                },
            )
        )
        self.OUTLET.apply_settings(
            LSLOutletSettings(stream_name=out, stream_type="Decoder", assume_lsl_clock=True)
        )

    def network(self) -> tuple:
        """Who listens to whom."""
        return (
            (self.INLET.OUTPUT_SIGNAL, self.BINS.INPUT_SIGNAL),
            (self.BINS.OUTPUT_SIGNAL, self.NETWORK.INPUT_SIGNAL),
            (self.NETWORK.OUTPUT_SIGNAL, self.OUTLET.INPUT_SIGNAL),
        )


def main() -> None:
    """Run until ended."""
    p = argparse.ArgumentParser()
    p.add_argument("--stream", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--units", type=int, required=True)
    p.add_argument("--hop", type=float, required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    ez.run(PIPELINE=Pipeline(a.stream, a.out, a.units, a.hop))


if __name__ == "__main__":
    main()
