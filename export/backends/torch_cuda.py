"""The bundle's network in torch on a GPU, a CUDA graph per bucket: the reference there.

Everything has a fixed address: pinned buffers on the host, tokens, tables, memory and outputs on
the device. A step's copies in, its computation and its copies out are one captured graph; the
memory advances when the step is accepted. On the CPU the same code runs without compiler and
capture. Decoders of one graph share its programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from export.backends.staging import Staging
from export.backends.torch_cpu import load_module
from export.backends.torch_program import Programs
from export.bundle import DecoderBundle, tables_for
from export.engines.builds import builds_folder
from export.engines.tables import fixed_zeros
from export.errors import BackendError, BackendUnavailable, BundleError, NotProvidedError
from export.manifest import TOKEN_INPUTS, Graph
from streams.messages import Float32s, TokenWindow

N_CAPTURE_RUNS = 3
"""Plain runs before a capture, in which libraries allocate what they keep."""
N_GRAPHS_KEPT = 4
_kept: dict[tuple[str, str], Programs] = {}


class TorchGraphBackend:
    """Runs one bin per step.

    Args:
        programs: take the graph's inputs, give its outputs, in the signature's order.
        signature: names and shapes.
        tables: the inputs that belong to the decoder.
        outputs: names of the outputs that are handed out.
        buckets: numbers of tokens to have graphs for, increasing.
        device: of the programs.

    Raises:
        BundleError: a table does not fit.
        BackendUnavailable: the graphs cannot be captured.
    """

    name = "torch-cuda"
    library = f"torch {torch.__version__}"
    precision = "fp32"

    def __init__(
        self,
        programs: Programs,
        signature: Graph,
        tables: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        buckets: Sequence[int],
        device: torch.device,
    ) -> None:
        self._device = device
        self._programs = programs
        self._signature = signature
        self._staging = Staging(buckets, self._pinned_array)
        self.n_most_tokens: int | None = self._staging.n_most
        self._host = {
            name: torch.from_numpy(getattr(self._staging, name))
            for name in (*TOKEN_INPUTS, "lead_s")
        }
        self._given = {name: value.to(self._device) for name, value in self._host.items()}
        known = {tensor.name: tensor for tensor in (*signature.inputs, *signature.outputs)}
        self._values = {
            name: torch.from_numpy(self._pinned_array(known[name].shape[0], np.float32))
            for name in outputs
        }
        self._memory = {
            name: torch.from_numpy(fixed_zeros(known[name])).to(self._device)
            for name in signature.memory
        }
        self._written = {name: torch.zeros_like(value) for name, value in self._memory.items()}
        self._tables: dict[str, Tensor] = {}
        self._stream = torch.cuda.Stream() if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._program: dict[int, torch.nn.Module] = {}
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.set_tables(tables)

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units; the next step overwrites them.

        Raises:
            BackendError: the run failed.
        """
        values = self.predecode(window, lead_s)
        self.accept()
        return values

    def predecode(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run a bin without advancing the memory, unless `accept` follows.

        Returns:
            As `step`.

        Raises:
            BackendError: the run failed.
        """
        bucket = self._staging.take(window, lead_s)
        try:
            self._run(bucket)
        except (RuntimeError, IndexError) as error:
            raise BackendError(f"{self.name} failed on {len(window)} tokens: {error}") from error
        return {name: value.numpy() for name, value in self._values.items()}

    @torch.inference_mode()
    def accept(self) -> None:
        """Advance the memory by the run just before; the next run on the stream comes after."""
        for name, value in self._memory.items():
            value.copy_(self._written[name])

    def reset(self) -> None:
        """Zero the memory."""
        for value in self._memory.values():
            value.zero_()
        self._wait()

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""
        self._wait()
        return {name: value.cpu().numpy().copy() for name, value in self._memory.items()}

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""
        for name, value in self._memory.items():
            value.copy_(torch.from_numpy(memory[name].copy()))
        self._wait()

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on.

        Of the same shape they are uploaded and nothing else changes; else the graphs are captured
        anew.

        Raises:
            BundleError: an array is missing or has another shape or type than the graph takes.
            BackendUnavailable: the graphs cannot be captured.
        """
        taken = tables_for(self._signature, tables)
        new = {name: torch.from_numpy(values) for name, values in taken.items()}
        if all(n in self._tables and self._tables[n].shape == new[n].shape for n in new):
            for name, values in new.items():
                self._tables[name].copy_(values)
            self._wait()
            return
        self._tables = {name: values.to(self._device) for name, values in new.items()}
        self._capture()

    def _pinned_array(self, length: int | str, dtype: type[np.generic]) -> np.ndarray:
        """Zeros in memory that the GPU reads and writes by itself, where there is one."""
        if not isinstance(length, int):
            raise BundleError(f"an output has a length that varies: {length!r}")
        kind = torch.int32 if dtype is np.int32 else torch.float32
        values: np.ndarray = torch.zeros(length, dtype=kind, pin_memory=self._on_gpu).numpy()
        return values

    def _capture(self) -> None:
        self._graphs, self._program = {}, {}
        try:
            for bucket in self._staging.buckets:
                self._program[bucket] = self._programs.of(self._inputs(bucket))
                for _ in range(N_CAPTURE_RUNS):
                    self._run(bucket)
                if self._stream is not None:
                    self._graphs[bucket] = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(
                        self._graphs[bucket],
                        stream=self._stream,
                        capture_error_mode="thread_local",
                    ):
                        self._compute(bucket)
        except RuntimeError as error:
            raise BackendUnavailable(
                f"torch cannot run this decoder on the GPU: {error}; use onnxruntime-cpu"
            ) from error
        self.reset()

    def _run(self, bucket: int) -> None:
        if self._stream is None:
            self._compute(bucket)
            return
        if bucket in self._graphs:
            self._graphs[bucket].replay()
            torch.cuda.current_stream().synchronize()
            return
        with torch.cuda.stream(self._stream):
            self._compute(bucket)
        self._stream.synchronize()

    @torch.inference_mode()
    def _compute(self, bucket: int) -> None:
        """Copy the tokens in, run the network, keep its memory, copy its outputs out."""
        for name, value in self._given.items():
            n = len(value) if name == "lead_s" else bucket
            value[:n].copy_(self._host[name][:n], non_blocking=True)
        found = self._program[bucket](*self._inputs(bucket))
        named = {t.name: v for t, v in zip(self._signature.outputs, found, strict=True)}
        for name, value in self._written.items():
            value.copy_(named[f"{name}_out"])
        for name, value in self._values.items():
            value.copy_(named[name], non_blocking=True)

    def _inputs(self, bucket: int) -> list[Tensor]:
        tokens = {name: self._given[name][:bucket] for name in TOKEN_INPUTS}
        given = {"lead_s": self._given["lead_s"], **tokens, **self._tables, **self._memory}
        return [given[tensor.name] for tensor in self._signature.inputs]

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


def open_cuda(bundle: DecoderBundle) -> TorchGraphBackend:
    """The bundle's network on the first GPU.

    Raises:
        BackendUnavailable: torch has no CUDA or finds no GPU, or does not know the family.
        BundleError: the weights are not those of its network.
    """
    if torch.version.cuda is None:
        raise NotProvidedError(
            f"torch {torch.__version__} was built without CUDA: install the CUDA build of torch "
            "by the line that pytorch.org gives for your driver"
        )
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "torch finds no GPU: is the NVIDIA driver installed, and does `nvidia-smi` list it?"
        )
    torch.set_float32_matmul_precision("highest")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(builds_folder() / "torch"))
    return open_on(bundle, "cuda")


def open_on(bundle: DecoderBundle, device: str) -> TorchGraphBackend:
    """The bundle's network on "cuda" or "cpu".

    Raises:
        BackendUnavailable, BundleError: see `open_cuda`.
    """
    manifest = bundle.manifest
    outputs = [output.name for output in manifest.outputs]
    programs, buckets = programs_of(bundle, device), manifest.token_buckets
    return TorchGraphBackend(
        programs, manifest.graph, bundle.tables, outputs, buckets, torch.device(device)
    )


def programs_of(bundle: DecoderBundle, device: str) -> Programs:
    """Those of the bundle's graph: the last few graphs keep theirs for the next decoder.

    Raises:
        BackendUnavailable, BundleError: see `open_cuda`.
    """
    key = (bundle.graph_sha256, device)
    programs = _kept.pop(key, None) or Programs(load_module(bundle), torch.device(device))
    _kept[key] = programs
    while len(_kept) > N_GRAPHS_KEPT:
        _kept.pop(next(iter(_kept)), None)
    return programs
