"""What fewer bits give on a CPU: `python -m benchmarks.precision BUNDLE SESSION.nwb`.

ONNX Runtime runs the bundle's graph in fp32, in fp16, and in int8 as its own `quantize_dynamic`
makes it; beside them the compiled function in fp32. All are timed in turn, each step after a wait.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from calibration.choices import split_of
from calibration.precision_gate import PrecisionGate
from export.backends.onnxruntime_cpu import open_graph
from export.backends.table import BACKENDS, Backend
from export.bundle import DecoderBundle, open_bundle
from export.choice.paced import time_in_turn
from export.engines.shapes import lowered
from export.errors import ExportError
from export.parity import largest_error

N_ROUNDS = 3


def in_int8(bundle: DecoderBundle) -> Backend:
    """Quantise every product with weights: these in int8, what they meet in uint8 each step."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(lowered(bundle, "fp32"), source)
        quantize_dynamic(source, made, weight_type=QuantType.QInt8)
        return open_graph(bundle, made.read_bytes(), "int8")


def in_half(bundle: DecoderBundle, precision: str) -> Backend:
    """As `spikeloop build` makes it."""
    return open_graph(bundle, lowered(bundle, precision).SerializeToString(), precision)


WAYS: dict[str, Callable[[DecoderBundle], Backend]] = {
    "onnxruntime-cpu fp32": lambda bundle: BACKENDS["onnxruntime-cpu"](bundle, "fp32"),
    "onnxruntime-cpu fp16": lambda bundle: in_half(bundle, "fp16"),
    "onnxruntime-cpu bf16": lambda bundle: in_half(bundle, "bf16"),
    "onnxruntime-cpu int8": in_int8,
    "numba-cpu fp32": lambda bundle: BACKENDS["numba-cpu"](bundle, "fp32"),
}


def main(arguments: Sequence[str]) -> int:
    """Print a line a way: median step of each round, R2 lost, difference from the record."""
    bundle, session = open_bundle(Path(arguments[0])), Path(arguments[1])
    opened: dict[str, Backend] = {}
    for name, make in WAYS.items():
        try:
            opened[name] = make(bundle)
        except ExportError as err:
            sys.stdout.write(f"{name:21} refused: {err}\n")
    gate = PrecisionGate(bundle, session, split_of(bundle, session))
    lost = {name: gate.judge(backend)["drop"] for name, backend in opened.items()}
    differ = {name: largest_error(backend, bundle.parity()) for name, backend in opened.items()}
    rounds = [time_in_turn(bundle, opened) for _ in range(N_ROUNDS)]
    for name in opened:
        steps = " / ".join(f"{taken_s[name] * 1e3:.3f}" for taken_s in rounds)
        sys.stdout.write(
            f"{name:21} {steps} ms; R2 lost {lost[name]:.5f}; parity {differ[name]:.2g}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
