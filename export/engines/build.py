"""`spikeloop build`: a bundle's graph compiled for a backend, and kept if it passes its gates.

TensorRT for RTX compiles on any machine for cards elsewhere. Then the gates are held where they
can be: what reduced precision costs, on this machine's CPU with the engine's roundings; parity with
the record, on the card, each time that the engine is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import onnx

from export.backends.opening import require_parity
from export.backends.table import Backend, parse_choice
from export.bundle import DecoderBundle
from export.engines.builds import FORMAT, WITH_BUNDLE, Build, checksums, new_build
from export.engines.makers import Graphs, Maker, Say, maker_of
from export.engines.shapes import for_bucket, lowered, n_rows_compiled, rows_are_gathered
from export.errors import BackendUnavailable, ExportError, GateError

Judge = Callable[[Backend], Mapping[str, Any]]
"""Scores a backend; of what it returns, `drop` is the R2 lost."""
R2_BOUND = 0.01


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
