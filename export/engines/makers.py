"""Makers of builds, one a backend: what they depend on, what is written, what opens them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.backends.table import Backend, load_tensorrt, require_one_onnxruntime
from export.bundle import DecoderBundle
from export.engines.builds import Build, Environment, bucket_name
from export.engines.gpu import Gpu, find_gpu
from export.engines.shapes import static_signature
from export.errors import BackendUnavailable
from export.tensorrt.library import DESKTOP, Library, library_for
from export.tensorrt.plan import build_plan
from export.tensorrt.turing import TURING, without_fp32_products

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Graphs:
    """A bundle's graph, lowered.

    Attributes:
        precision: "fp32", "fp16" or "bf16".
        model: in that precision, its lengths open.
        by_bucket: static, by tokens; under 0 `model` itself where the backend takes any length.
        n_rows: rows of the tables compiled for; 0 where any number does.
    """

    precision: str
    model: onnx.ModelProto
    by_bucket: Mapping[int, onnx.ModelProto]
    n_rows: int


@dataclass(frozen=True, slots=True)
class Maker:
    """A backend's way to make and open builds.

    Attributes:
        environment: what they depend on.
        write: writes the files of a build.
        open: opens them; None where they are for a device that is not here.
        is_static: whether there is one per bucket, every shape static.
    """

    environment: Environment
    write: Callable[[Path, DecoderBundle, Graphs, Say], None]
    open: Callable[[DecoderBundle, Build], Backend] | None
    is_static: bool = True


def maker_of(backend: str, targets: Sequence[str]) -> Maker:
    """The maker of a backend's builds.

    Args:
        backend: its name in the backend table.
        targets: compute capabilities to compile for; empty for the default.

    Raises:
        BackendUnavailable: it cannot build here, has no such target, or takes no builds.
    """
    if backend == "tensorrt":
        return _tensorrt(targets)
    makers = {"onnxruntime-cpu": _onnxruntime_cpu, "onnxruntime-cuda": _onnxruntime_cuda}
    if backend not in makers:
        raise BackendUnavailable(
            f"{backend} runs bundles as they are; there are builds for: "
            f"{', '.join((*makers, 'tensorrt'))}"
        )
    return makers[backend]()


def _onnxruntime_cpu() -> Maker:
    from export.backends.onnxruntime_cpu import environment, open_build

    return Maker(environment(), _write_graph, open_build, is_static=False)


def _onnxruntime_cuda() -> Maker:
    require_one_onnxruntime()
    from export.backends.onnxruntime_cuda import cuda_environment, open_build

    return Maker(cuda_environment(), _write_graphs, open_build)


def _tensorrt(targets: Sequence[str]) -> Maker:
    gpu = _gpu_here()
    library = library_for(gpu.target if gpu else None)
    chosen = _chosen(library, targets, gpu)

    def write(folder: Path, bundle: DecoderBundle, graphs: Graphs, say: Say) -> None:
        _write_plans(library, chosen, folder, bundle, graphs, say)

    if gpu is None:
        return Maker(Environment(str(library), "+".join(chosen), chosen), write, None)
    backend = load_tensorrt()

    def open_it(bundle: DecoderBundle, made: Build) -> Backend:
        opened: Backend = backend.open_build(bundle, made, library, gpu)
        return opened

    runs_here = not chosen or set(backend.environment(library, gpu).targets) & set(chosen)
    environment = Environment(str(library), "+".join(chosen) or str(gpu), chosen)
    return Maker(environment, write, open_it if runs_here else None)


def _gpu_here() -> Gpu | None:
    try:
        return find_gpu()
    except BackendUnavailable:
        return None


def _chosen(library: Library, targets: Sequence[str], gpu: Gpu | None) -> tuple[str, ...]:
    """The cards to compile for; none where the library compiles for the one in this machine."""
    if not library.builds_ahead:
        return library.checked_targets(targets)
    own = (gpu.target,) if gpu and gpu.target in library.targets else ()
    chosen = library.checked_targets(targets or (*DESKTOP, *own))
    if TURING in chosen and chosen != (TURING,):
        raise BackendUnavailable(
            f"{TURING} (Turing) takes a graph of its own: build it alone, --target {TURING} "
            "--precision fp16"
        )
    return chosen


def _write_graph(folder: Path, bundle: DecoderBundle, graphs: Graphs, say: Say) -> None:
    (folder / "graph.onnx").write_bytes(graphs.model.SerializeToString())


def _write_graphs(folder: Path, bundle: DecoderBundle, graphs: Graphs, say: Say) -> None:
    for n_tokens, graph in graphs.by_bucket.items():
        (folder / bucket_name(n_tokens, "onnx")).write_bytes(graph.SerializeToString())


def _write_plans(
    library: Library,
    targets: Sequence[str],
    folder: Path,
    bundle: DecoderBundle,
    graphs: Graphs,
    say: Say,
) -> None:
    for i, (n_tokens, graph) in enumerate(graphs.by_bucket.items(), start=1):
        t_start_s = time.monotonic()
        if TURING in targets and graphs.precision == "fp16":
            graph = without_fp32_products(graph)
        signature = static_signature(bundle.manifest.graph, n_tokens=n_tokens, n_rows=graphs.n_rows)
        plan = build_plan(library, graph.SerializeToString(), signature, targets)
        (folder / bucket_name(n_tokens, "plan")).write_bytes(plan)
        say(
            f"engine {i} of {len(graphs.by_bucket)}, {n_tokens} tokens: {len(plan) / 1e6:.1f} MB "
            f"in {time.monotonic() - t_start_s:.1f} s"
        )
