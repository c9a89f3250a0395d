"""From a bundle's graph to what a device compiles: one precision, one shape, known operators."""

from __future__ import annotations

import onnx

from export.bundle import DecoderBundle
from export.engines.precision import in_precision
from export.engines.shapes import lengths_of, pinned, rows_for
from export.engines.tables import n_rows_of
from export.manifest import Graph


def lowered(bundle: DecoderBundle, precision: str) -> onnx.ModelProto:
    """The bundle's graph in a precision, its lengths still open.

    Raises:
        ExportError: no such precision, or a weight beyond fp16.
    """
    return in_precision(onnx.load_model_from_string(bundle.graph_path.read_bytes()), precision)


def n_rows_compiled(bundle: DecoderBundle, model: onnx.ModelProto) -> int:
    """Rows that its engines take: `rows_for` of the bundle's."""
    return rows_for(model, bundle.manifest.graph, n_rows_of(bundle))


def for_bucket(
    bundle: DecoderBundle, model: onnx.ModelProto, n_tokens: int, n_rows: int
) -> onnx.ModelProto:
    """The graph of one bucket, every shape static.

    Raises:
        ExportError: a shape varies with more than tokens and rows.
    """
    return pinned(model, lengths_of(bundle.manifest.graph, n_tokens=n_tokens, n_rows=n_rows))


def static_signature(signature: Graph, *, n_tokens: int, n_rows: int) -> Graph:
    """The signature with its lengths fixed, as a graph of `for_bucket` has it."""
    lengths = lengths_of(signature, n_tokens=n_tokens, n_rows=n_rows)
    told = signature.model_dump()
    for tensor in (*told["inputs"], *told["outputs"]):
        tensor["shape"] = [lengths.get(n, n) if isinstance(n, str) else n for n in tensor["shape"]]
    return Graph.model_validate(told)
