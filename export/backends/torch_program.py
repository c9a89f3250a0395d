"""A network as programs of static shapes, written anew for a GPU.

A module cuts, turns and scales its weights in every call, multiplies the same tokens by one matrix
after another, and sums over all tokens at once. A GPU's time goes into the number of its kernels
and into sums that few of its processors share. So what no input changes is computed once, products
of the same left operand are made one, and long sums are cut; then torch's compiler, where it finds
Triton, makes few kernels of many.
"""

from __future__ import annotations

import operator
import threading
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten
N_PROGRAMS_KEPT = 32
"""Of a network: its buckets, for a few numbers of units."""
LONG = 4
"""A product's sums are long if they have so many times the terms of its larger side."""
N_PARTS, SHORTEST = 64, 32
"""Into how many parts, about, and of how many terms at least, they are cut."""


class Programs:
    """A network's programs, one for each shape of its inputs, made when first asked for.

    The last `N_PROGRAMS_KEPT` that were asked for are kept; who runs one longer holds it.

    Args:
        module: the network, in evaluation.
        device: where it runs; on "cuda" programs are compiled.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module.eval().to(device)
        self._device = device
        self._made: dict[tuple[torch.Size, ...], nn.Module] = {}
        self._making = threading.Lock()

    def of(self, inputs: Sequence[Tensor]) -> nn.Module:
        """The program for inputs of these shapes."""
        key = tuple(value.shape for value in inputs)
        with self._making:
            program = self._made.pop(key, None) or self._make(inputs)
            self._made[key] = program
            while len(self._made) > N_PROGRAMS_KEPT:
                self._made.pop(next(iter(self._made)))
            return program

    def _make(self, inputs: Sequence[Tensor]) -> nn.Module:
        with self._device:
            program = program_of(self._module, inputs)
        self._share_constants(program)
        return compiled(program, inputs) if self._device.type == "cuda" else program

    def _share_constants(self, program: fx.GraphModule) -> None:
        """Most constants are the same for every number of tokens: they lie on the device once."""
        known = [value for made in self._made.values() for value in made.buffers()]
        for name, value in program.named_buffers(recurse=False):
            for one in known:
                if one.shape == value.shape and torch.equal(one, value):
                    setattr(program, name, one)
                    break


@torch.no_grad()
def program_of(module: nn.Module, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The module for inputs of these shapes, rewritten; it is not compiled.

    Args:
        module: in evaluation, on the device of the inputs.
        inputs: one for each argument, of the shapes that will come.

    Returns:
        Takes the same arguments, gives the same outputs but for rounding.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(module, tuple(inputs), strict=False).module()
    assert isinstance(program, fx.GraphModule)
    fold_constants(program)
    join_products(program)
    fold_constants(program)
    cut_long_products(program)
    drop_unused_constants(program)
    program.recompile()
    return program


@torch.inference_mode()
def compiled(program: fx.GraphModule, inputs: Sequence[Tensor]) -> nn.Module:
    """The program by torch's compiler; as it is, where the compiler lacks Triton or a C compiler.

    It is run once, so that nothing is left to compile.
    """
    faster = torch.compile(program, fullgraph=True, dynamic=False)
    assert isinstance(faster, nn.Module)
    try:
        faster(*inputs)
    except RuntimeError as error:
        warnings.warn(
            f"torch cannot compile for this GPU, which is slower: {str(error).splitlines()[0]}; "
            "it needs Triton and a C compiler",
            stacklevel=2,
        )
        return program
    return faster


def long_product(left: Tensor, right: Tensor, n_terms: int) -> Tensor:
    """`left @ right` as the sum of products of `n_terms` terms each, and of what is left over.

    A GPU divides a product among its processors by cells: long sums for few cells are the work of
    few.

    Args:
        left: (..., M, K).
        right: (..., K, N).
        n_terms: of each part's sums, at most K.
    """
    whole = left.shape[-1] // n_terms * n_terms
    parts = torch.unflatten(left[..., :whole], -1, (-1, n_terms)).transpose(-3, -2)
    others = torch.unflatten(right[..., :whole, :], -2, (-1, n_terms))
    product: Tensor = (parts @ others).sum(-3)
    if whole < left.shape[-1]:
        product = product + left[..., whole:] @ right[..., whole:, :]
    return product


def fold_constants(program: fx.GraphModule) -> None:
    """Compute once what does not depend on the inputs."""
    graph = program.graph
    first, stem = next(iter(graph.nodes)), f"folded_{len(graph.nodes)}"
    known: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = operator.attrgetter(str(node.target))(program)
        elif node.op == "call_function" and all(given in known for given in node.all_input_nodes):
            args, kwargs = (
                fx.node.map_arg(given, known.__getitem__) for given in (node.args, node.kwargs)
            )
            known[node] = node.target(*args, **kwargs)
    for i, (node, value) in enumerate(known.items()):
        used = any(user not in known for user in node.users)
        if node.op != "call_function" or not used or not isinstance(value, Tensor):
            continue
        program.register_buffer(f"{stem}_{i}", value.detach().clone(), persistent=False)
        with graph.inserting_before(first):
            constant = graph.get_attr(f"{stem}_{i}")
        constant.meta["val"] = value
        node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()


def join_products(program: fx.GraphModule) -> None:
    """Make products of the same left operand one, of their right operands side by side."""
    graph = program.graph
    groups: dict[Any, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        if node.target is aten.matmul.default:
            left, right = _operands(node)
            groups[left, right.op == "get_attr", _shape(right)[:-1]].append(node)
    for nodes in groups.values():
        if len(nodes) > 1:
            _join(graph, nodes)
    graph.eliminate_dead_code()


def _join(graph: fx.Graph, nodes: Sequence[fx.Node]) -> None:
    place = {node: i for i, node in enumerate(graph.nodes)}
    left, rights = _operands(nodes[0])[0], [_operands(node)[1] for node in nodes]
    last = max((left, *rights), key=place.__getitem__)
    if min(place[user] for node in nodes for user in node.users) <= place[last]:
        return
    sizes = [_shape(node)[-1] for node in nodes]
    with graph.inserting_after(last):
        right = graph.call_function(aten.cat.default, (rights, -1))
    with graph.inserting_after(right):
        product = graph.call_function(aten.matmul.default, (left, right))
    with graph.inserting_after(product):
        parts = graph.call_function(aten.split_with_sizes.default, (product, sizes, -1))
    for joined, like in ((right, rights[0]), (product, nodes[0])):
        shape = (*_shape(like)[:-1], sum(sizes))
        joined.meta["val"] = torch.empty(shape, device="meta")
    for i, node in enumerate(nodes):
        with graph.inserting_after(parts):
            node.replace_all_uses_with(graph.call_function(operator.getitem, (parts, i)))


def cut_long_products(program: fx.GraphModule) -> None:
    """Put `long_product` where a product has long sums and few cells."""
    graph = program.graph
    for node in graph.nodes:
        if node.target is not aten.matmul.default:
            continue
        (n_rows, n_sum), n_columns = _shape(_operands(node)[0])[-2:], _shape(node)[-1]
        if n_sum >= LONG * max(n_rows, n_columns, SHORTEST):
            n_terms = max(SHORTEST, 1 << (n_sum // N_PARTS).bit_length())
            with graph.inserting_before(node):
                cut = graph.call_function(long_product, (*node.args, n_terms))
            node.replace_all_uses_with(cut)
    graph.eliminate_dead_code()


def drop_unused_constants(program: fx.GraphModule) -> None:
    """Let go of what was folded and then joined."""
    used = {str(node.target) for node in program.graph.nodes if node.op == "get_attr"}
    for name, _ in list(program.named_buffers(recurse=False)):
        if name not in used:
            delattr(program, name)


def _operands(product: fx.Node) -> tuple[fx.Node, fx.Node]:
    left, right = product.args
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    return left, right


def _shape(node: fx.Node) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape
