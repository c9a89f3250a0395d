"""`spikeloop build`: a bundle's graph compiled for a backend, and kept if it passes its gates.

TensorRT for RTX compiles on any machine for cards elsewhere. Then the gates are held where they
can be: what reduced precision costs, on this machine's CPU with the engine's roundings; parity with
the record, on the card, each time that the engine is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from export.backends.opening import require_parity
from export.backends.table import Backend, load_tensorrt, parse_choice, require_one_onnxruntime
from export.bundle import DecoderBundle
from export.engines.builds import (
    FORMAT,
    WITH_BUNDLE,
    Build,
    Environment,
    bucket_name,
    checksums,
    new_build,
)
from export.engines.gpu import Gpu, find_gpu
from export.engines.shapes import (
    for_bucket,
    lowered,
    n_rows_compiled,
    rows_are_gathered,
    static_signature,
)
from export.errors import BackendUnavailable, ExportError, GateError
from export.tensorrt.library import DESKTOP, Library, library_for
from export.tensorrt.plan import TURING, build_plan, without_fp32_products

Judge = Callable[[Backend], Mapping[str, Any]]
"""Scores a backend; of what it returns, `drop` is the R2 lost."""
R2_BOUND = 0.01
Say = Callable[[str], None]


def build(
    bundle: DecoderBundle,
    backend: str,
    precision: str,
    *,
    targets: Sequence[str] = (),
    judge: Judge | None = None,
    bound: float = R2_BOUND,
    with_bundle: bool = False,
    say: Say = lambda line: None,
) -> Build:
    """Compile a bundle's graph, hold the result to the record and to the recording, and keep it.

    Args:
        bundle: the decoder.
        backend: its name in the backend table.
        precision: "fp32", "fp16" or "bf16".
        targets: compute capabilities to compile for, such as "sm89"; by default those of RTX
            cards of today and of the card in this machine. TensorRT for RTX alone has a choice.
        judge: measures on a recording what reduced precision costs; needed to serve anything but
            fp32.
        bound: R2 that may be lost.
        with_bundle: keep it in the bundle's folder, so that it is sent with it.
        say: told of each step.

    Raises:
        BackendUnavailable: the backend cannot build here, or takes no builds.
        BundleError: the result disagrees with the record.
        GateError: it loses more R2 than the bound.
        ExportError: the graph cannot be compiled, or no recording was given where one is needed.
    """
    parse_choice(f"{backend}:{precision}")
    _require_sense(backend, precision, targets, judge)
    maker = maker_of(backend, targets)
    graphs = _graphs(bundle, precision, maker)
    record: dict[str, Any] = {
        "format": FORMAT,
        "backend": backend,
        "precision": precision,
        "environment": [maker.environment.runtime, maker.environment.device],
        "targets": list(maker.environment.targets),
        "graph_sha256": bundle.graph_sha256,
        "token_buckets": sorted(graphs.by_bucket) if maker.is_static else [],
        "n_rows": graphs.n_rows,
        "rows_padded": rows_are_gathered(graphs.model, bundle.manifest.graph),
    }
    folder = bundle.path / WITH_BUNDLE if with_bundle else None
    with new_build(bundle, record, folder) as (beside, path):
        where = f"{maker.environment.runtime} for {maker.environment.device}"
        say(f"{backend} {precision}: {len(graphs.by_bucket)} graph(s) by {where}")
        maker.write(beside, bundle, graphs, say)
        record["files"] = checksums(beside)
        if maker.open is None:
            record["verdict"] = _verdict_ahead(bundle, graphs.model, precision, judge, bound, say)
        else:
            opened = maker.open(bundle, Build(beside, record))
            record["verdict"] = _verdict(bundle, opened, judge, bound, say)
    return Build(path, record)


def _require_sense(
    backend: str, precision: str, targets: Sequence[str], judge: Judge | None
) -> None:
    if precision != "fp32" and judge is None and backend != "tensorrt":
        raise ExportError(
            f"{precision} is built only against a recording: name one with --session, so that the "
            "R2 it costs is known"
        )
    if targets and backend != "tensorrt":
        raise BackendUnavailable(f"{backend} builds for this machine alone: leave --target out")
    if backend == "onnxruntime-cpu" and precision != "fp16":
        raise BackendUnavailable(
            "onnxruntime-cpu runs fp32 as it is and has no kernels for bf16: it is built in fp16 "
            "alone, to see what that costs without a GPU"
        )


def _graphs(bundle: DecoderBundle, precision: str, maker: Maker) -> Graphs:
    model = lowered(bundle, precision)
    if not maker.is_static:
        return Graphs(precision, model, {0: model}, 0)
    n_rows = n_rows_compiled(bundle, model)
    buckets = bundle.manifest.token_buckets
    by_bucket = {n: for_bucket(bundle, model, n, n_rows) for n in buckets}
    return Graphs(precision, model, by_bucket, n_rows)


def _verdict(
    bundle: DecoderBundle, opened: Backend, judge: Judge | None, bound: float, say: Say
) -> dict[str, Any]:
    error = require_parity(bundle, opened)
    say(f"parity: {error:.3g} from the record")
    return _dated(error) | _cost(opened, judge, bound, say)


def _verdict_ahead(
    bundle: DecoderBundle,
    model: onnx.ModelProto,
    precision: str,
    judge: Judge | None,
    bound: float,
    say: Say,
) -> dict[str, Any]:
    """The gates that can be held without the card: the roundings of the graph, on the CPU."""
    say("no GPU that these engines are for: parity is held where they are opened, each time")
    if precision == "fp32":
        return _dated(None)
    if judge is None:
        say(f"the R2 that {precision} costs is not known: it is served only once --session told it")
        return _dated(None)
    from export.backends.onnxruntime_cpu import open_graph
    from export.engines.precision import rounding

    rounded = open_graph(bundle, rounding(model).SerializeToString(), precision)
    return _verdict(bundle, rounded, judge, bound, say) | {
        "parity_error": None,
        "judged_on": "onnxruntime-cpu, rounding as the graph says",
    }


def _dated(error: float | None) -> dict[str, Any]:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "parity_error": error}


def _cost(opened: Backend, judge: Judge | None, bound: float, say: Say) -> dict[str, Any]:
    if judge is None:
        return {}
    cost = judge(opened)
    say(f"R2 lost: {cost['drop']:.5f}, of {bound:g} allowed")
    if not cost["drop"] <= bound:
        raise GateError(
            f"{opened.name} in {opened.precision} loses {cost['drop']:.4f} of R2 on "
            f"{cost['session']}, more than the {bound:g} allowed: nothing was built; stay with "
            "fp32, or try bf16"
        )
    return {"r2_bound": bound, **cost}


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
