"""Every length fixed: a graph for one bucket of tokens, and the rows that its table is padded to.

A compiled engine and a CUDA graph want shapes that never change. A bin's tokens are padded to the
smallest bucket that holds them; a padding token has `count` 0 and weighs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from export.bundle import DecoderBundle
from export.engines.constants import folded, static_shapes
from export.engines.precision import in_precision
from export.engines.tables import n_rows_of
from export.errors import ExportError
from export.manifest import TOKEN_INPUTS, Graph

ROWS_STEP = 128


def pinned(model: onnx.ModelProto, lengths: Mapping[str, int]) -> onnx.ModelProto:
    """The model with every varying length fixed, and what follows from that folded.

    Args:
        model: with named lengths.
        lengths: value of each name.

    Raises:
        ExportError: a length has no value, or a shape still varies.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                if dim.dim_param not in lengths:
                    raise ExportError(
                        f"`{value.name}` has a length {dim.dim_param!r} that nothing fixes"
                    )
                dim.dim_value = lengths[dim.dim_param]
    fixed = _folded_fully(fixed)
    require_static(fixed)
    return fixed


def _folded_fully(model: onnx.ModelProto) -> onnx.ModelProto:
    """A folded length may make the next shape known: repeat until nothing is left to fold."""
    while True:
        less = folded(model)
        if len(less.graph.node) == len(model.graph.node):
            return less
        model = less


def require_static(model: onnx.ModelProto) -> None:
    """Refuse a graph in which a tensor's shape is not known before it runs.

    Raises:
        ExportError: naming the tensor and the node that makes it.
    """
    shapes = static_shapes(model)
    for node in model.graph.node:
        for name in node.output:
            if name and name not in shapes:
                raise ExportError(
                    f"the shape of {name!r}, made by {node.op_type}, is not known before it runs: "
                    "no engine can be built of this graph"
                )


def lengths_of(signature: Graph, *, n_tokens: int, n_rows: int) -> dict[str, int]:
    """Value of each length that the graph's inputs leave open: tokens, and rows of the tables."""
    tokens = {
        length
        for tensor in signature.inputs
        if tensor.name in TOKEN_INPUTS
        for length in tensor.shape
        if isinstance(length, str)
    }
    rows = {
        length
        for tensor in signature.tables
        for length in tensor.shape
        if isinstance(length, str) and length not in tokens
    }
    return dict.fromkeys(rows, n_rows) | dict.fromkeys(tokens, n_tokens)


def rows_are_gathered(model: onnx.ModelProto, signature: Graph) -> bool:
    """Return True if tokens gather rows of the tables, and nothing else reads these.

    Then further rows change nothing, and an engine can be made with room for other sessions. POYO
    asks every row for its START and END: its engines are made for exactly as many units.
    """
    tables = {t.name for t in signature.tables if isinstance(t.shape[0], str)}
    readers = [node for node in model.graph.node if tables & set(node.input)]
    return all(node.op_type == "Gather" and node.input[1] not in tables for node in readers)


def lowered(bundle: DecoderBundle, precision: str) -> onnx.ModelProto:
    """The bundle's graph in a precision, its lengths still open.

    Raises:
        ExportError: no such precision, or a weight beyond fp16.
    """
    return in_precision(onnx.load_model_from_string(bundle.graph_path.read_bytes()), precision)


def n_rows_compiled(bundle: DecoderBundle, model: onnx.ModelProto) -> int:
    """Count the rows to compile for: up to a multiple of 128, where more change nothing."""
    n_rows = n_rows_of(bundle)
    gathered = rows_are_gathered(model, bundle.manifest.graph)
    return -(-n_rows // ROWS_STEP) * ROWS_STEP if gathered else n_rows


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
