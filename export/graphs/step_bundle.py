"""A step module as ONNX, and its bundle: signature, tables and parity record follow from it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.backends.onnxruntime_cpu import describe_graph
from export.backends.torch_cpu import TorchBackend
from export.bundle import DecoderBundle, write_bundle
from export.errors import ExportError
from export.parity import random_tokens, replay

OPSET = 20


def write_step_bundle(
    out: Path,
    step: nn.Module,
    graph: bytes,
    fields: Mapping[str, Any],
    *,
    tables: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    n_beats: int,
    mean_hz: float = 20.0,
    whole_us: bool = False,
) -> DecoderBundle:
    """Write a bundle, its parity record decoded by torch from random spikes.

    Args:
        out: a directory that does not exist yet; its name becomes the decoder's.
        step: takes the graph's inputs and gives its outputs, in the graph's order.
        graph: the step as ONNX.
        fields: for the manifest, but for `name` and `graph`.
        tables: graph inputs that belong to the session.
        weights: for the bundle.
        n_beats: parity record length.
        mean_hz: unit rate in the parity record.
        whole_us: round its token times to whole microseconds, as the loop's are.

    Raises:
        BundleError: `out` exists, or a field is wrong.
    """
    signature = describe_graph(graph, OPSET)
    held = {name: np.ascontiguousarray(t.detach().numpy()) for name, t in tables.items()}
    lead_s = fields["lead_s"]
    tokens = random_tokens(
        np.random.default_rng(0),
        n_rows=len(fields["units"]),
        n_beats=n_beats,
        bin_s=fields["bin_s"],
        n_most=max(fields["token_buckets"]),
        leads_s=(lead_s["min"], lead_s["max"]),
        mean_hz=mean_hz,
    )
    if whole_us:
        # In float64: float32 does not hold whole microseconds as seconds.
        rounded = np.round(tokens.t_rel.astype(np.float64) * 1e6) * 1e-6
        tokens = replace(tokens, t_rel=rounded.astype(np.float32))
    names = [output["name"] for output in fields["outputs"]]
    return write_bundle(
        out,
        {**fields, "name": out.name, "graph": signature.model_dump()},
        graph=graph,
        tables=held,
        weights={name: value.detach().numpy() for name, value in weights.items()},
        parity=replay(TorchBackend(step, signature, held, names), tokens),
    )


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
