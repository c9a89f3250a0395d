"""A network's step as ONNX: the same network gives the same bytes, wherever it is exported."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from export.errors import ExportError

OPSET = 20


def to_onnx(
    step: nn.Module, inputs: Mapping[str, Tensor], names: Sequence[str], lengths: Sequence[Any]
) -> bytes:
    """Convert a step to ONNX, its weights inside.

    Args:
        step: the network.
        inputs: an example for each, by its name in the graph.
        names: the outputs'.
        lengths: dimensions that vary, per input, as `torch.export` takes them.

    Raises:
        ExportError: torch gives no graph.
    """
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            step.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(names),
            dynamic_shapes=tuple(lengths),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch gave no ONNX graph for this decoder")
    return _without_notes(program.model_proto)


def _without_notes(model: onnx.ModelProto) -> bytes:
    """Check a model, and drop the exporter's notes, which name this machine's files."""
    graph = model.graph
    noted = (graph.node, graph.value_info, graph.initializer, graph.input, graph.output)
    for held in (graph, *(one for many in noted for one in many)):
        del held.metadata_props[:]
        held.doc_string = ""
    onnx.checker.check_model(model)
    stripped: bytes = model.SerializeToString()
    return stripped


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which reports every constant that it leaves to the runtime."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
