"""`spikeloop build`: a bundle's graph compiled for a backend, and kept if it passes its gates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from export.backend_table import Backend, load_tensorrt, parse_choice, require_one_onnxruntime
from export.backends import require_parity
from export.bundle import DecoderBundle
from export.compiled.builds import (
    RECORD,
    Build,
    Environment,
    bucket_name,
    builds_folder,
    find_build,
    new_build,
)
from export.compiled.lowering import for_bucket, lowered, n_rows_compiled
from export.compiled.shapes import rows_are_gathered
from export.compiled.supported_ops import require_supported
from export.errors import BackendUnavailable, ExportError, GateError

Say = Callable[[str], None]
Judge = Callable[[Backend], Mapping[str, Any]]
"""Scores a backend; of what it returns, `drop` is the R2 lost."""
R2_BOUND = 0.01


@dataclass(frozen=True, slots=True)
class Maker:
    """How a backend's builds are made and opened.

    Attributes:
        environment: what they depend on.
        make: writes the files of a build.
        open: opens them.
        is_static: whether there is one per bucket, every shape static.
    """

    environment: Callable[[], Environment]
    make: Callable[[Path, Mapping[int, onnx.ModelProto], Environment, Say], None]
    open: Callable[[DecoderBundle, Build], Backend]
    is_static: bool = True


def build(
    bundle: DecoderBundle,
    backend: str,
    precision: str,
    *,
    judge: Judge | None = None,
    bound: float = R2_BOUND,
    say: Say = lambda line: None,
) -> Build:
    """Compile a bundle's graph, hold the result to the record and to the recording, and keep it.

    Args:
        bundle: the decoder.
        backend: its name in the backend table.
        precision: "fp32", "fp16" or "bf16".
        judge: what reduced precision costs on a recording; needed for anything but fp32.
        bound: R2 that may be lost.
        say: told of each step.

    Raises:
        BackendUnavailable: the backend cannot run here, or takes no builds.
        BundleError: the result disagrees with the record.
        GateError: it loses more R2 than the bound.
        ExportError: the graph cannot be compiled, or no recording was given where one is needed.
    """
    parse_choice(f"{backend}:{precision}")
    if precision != "fp32" and judge is None:
        raise ExportError(
            f"{precision} is built only against a recording: name one with --session, so that the "
            f"R2 it costs is known (at most {bound:g})"
        )
    if backend == "onnxruntime-cpu" and precision != "fp16":
        raise BackendUnavailable(
            "onnxruntime-cpu runs fp32 as it is and has no kernels for bf16: it is built in fp16 "
            "alone, to see what that costs without a GPU"
        )
    maker = _maker(backend)
    environment = maker.environment()
    model = lowered(bundle, precision)
    graphs, n_rows = _graphs(bundle, model, backend, precision, maker)
    with new_build(bundle, precision, backend, environment) as folder:
        say(f"{backend} {precision}: {len(graphs)} graphs for {environment.device}")
        maker.make(folder, graphs, environment, say)
        record: dict[str, Any] = {
            "backend": backend,
            "precision": precision,
            "environment": [environment.runtime, environment.device],
            "graph_sha256": bundle.graph_sha256,
            "token_buckets": sorted(graphs) if maker.is_static else [],
            "n_rows": n_rows,
            "rows_padded": rows_are_gathered(model, bundle.manifest.graph),
        }
        opened = maker.open(bundle, Build(folder, record))
        record["verdict"] = _verdict(bundle, opened, judge, bound, say)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return find_build(bundle, backend, precision, environment)


def _graphs(
    bundle: DecoderBundle, model: onnx.ModelProto, backend: str, precision: str, maker: Maker
) -> tuple[dict[int, onnx.ModelProto], int]:
    """By bucket, or under 0 the one of any length; and the rows that they take."""
    if not maker.is_static:
        return {0: model}, 0
    n_rows = n_rows_compiled(bundle, model)
    buckets = bundle.manifest.token_buckets
    graphs = {n: for_bucket(bundle, model, n, n_rows) for n in buckets}
    if backend.endswith("tensorrt"):
        for n, graph in graphs.items():
            require_supported(graph, f"the {precision} graph of {n} tokens")
    return graphs, n_rows


def _verdict(
    bundle: DecoderBundle, opened: Backend, judge: Judge | None, bound: float, say: Say
) -> dict[str, Any]:
    error = require_parity(bundle, opened)
    say(f"parity: {error:.3g} from the record")
    verdict: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parity_error": error,
    }
    if judge is None:
        return verdict
    cost = judge(opened)
    say(f"R2 lost: {cost['drop']:.5f}, of {bound:g} allowed")
    if not cost["drop"] <= bound:
        raise GateError(
            f"{opened.name} in {opened.precision} loses {cost['drop']:.4f} of R2 on "
            f"{cost['session']}, more than the {bound:g} allowed: nothing was built; stay with "
            "fp32, or try bf16"
        )
    return verdict | {"r2_bound": bound, **cost}


def _maker(backend: str) -> Maker:
    makers = {
        "onnxruntime-cpu": _onnxruntime_cpu,
        "onnxruntime-cuda": _onnxruntime_cuda,
        "onnxruntime-tensorrt": _onnxruntime_tensorrt,
        "tensorrt": _tensorrt,
    }
    if backend not in makers:
        raise BackendUnavailable(
            f"{backend} runs bundles as they are; there are builds for: {', '.join(makers)}"
        )
    return makers[backend]()


def _onnxruntime_cpu() -> Maker:
    from export.onnxruntime_backend import environment, open_build

    return Maker(environment, _write_graph, open_build, is_static=False)


def _onnxruntime_cuda() -> Maker:
    require_one_onnxruntime()
    from export.compiled.onnxruntime_static import cuda_environment, open_build

    return Maker(cuda_environment, _write_graphs, open_build)


def _onnxruntime_tensorrt() -> Maker:
    require_one_onnxruntime()
    from export.compiled.onnxruntime_static import open_build, tensorrt_environment

    return Maker(tensorrt_environment, _write_graphs, open_build)


def _tensorrt() -> Maker:
    backend = load_tensorrt()
    return Maker(backend.environment, _write_plans, backend.open_build)


def _write_graph(
    folder: Path, graphs: Mapping[int, onnx.ModelProto], environment: Environment, say: Say
) -> None:
    (folder / "graph.onnx").write_bytes(graphs[0].SerializeToString())


def _write_graphs(
    folder: Path, graphs: Mapping[int, onnx.ModelProto], environment: Environment, say: Say
) -> None:
    for n_tokens, graph in graphs.items():
        (folder / bucket_name(n_tokens, "onnx")).write_bytes(graph.SerializeToString())


def _write_plans(
    folder: Path, graphs: Mapping[int, onnx.ModelProto], environment: Environment, say: Say
) -> None:
    from export.compiled.tensorrt_library import build_plan

    name = f"{environment.runtime}-{environment.device}".replace(" ", "_").replace("/", "_")
    timings = builds_folder() / f"{name}.timings"
    held = timings.read_bytes() if timings.exists() else b""
    for n_tokens, graph in graphs.items():
        say(f"compiling for {n_tokens} tokens")
        plan, held = build_plan(graph.SerializeToString(), held)
        (folder / bucket_name(n_tokens, "plan")).write_bytes(plan)
    timings.write_bytes(held)
