"""What is written anew for a GPU computes the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import DecoderBundle

torch = pytest.importorskip("torch")
torch_program = pytest.importorskip("export.backends.torch_program")
torch_cuda_backend = pytest.importorskip("export.backends.torch_cuda")


class Products(torch.nn.Module):
    """Products of one operand before and after others are ready, constants, and long sums."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 8, 5))

    def forward(self, x: torch.Tensor, many: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = x @ self.weight[0]
        second = torch.tanh(first) + x @ (self.weight[1] * 2.0)
        late = x @ (many.t() @ many)
        return first, second + x @ self.weight[2], late


def traced(n: int) -> tuple[Products, list[torch.Tensor], torch.fx.GraphModule]:
    torch.manual_seed(0)
    module, inputs = Products().eval(), [torch.randn(4, 8), 0.1 * torch.randn(n, 8)]
    return module, inputs, torch_program.program_of(module, inputs)


def targets(program: torch.fx.GraphModule) -> Counter[str]:
    return Counter(
        getattr(node.target, "__name__", str(node.target))
        for node in program.graph.nodes
        if node.op == "call_function"
    )


@pytest.mark.parametrize("n", [7, 300])
def test_the_program_computes_what_the_module_does(n: int) -> None:
    module, inputs, program = traced(n)
    for given_value, wanted in zip(program(*inputs), module(*inputs), strict=True):
        torch.testing.assert_close(given_value, wanted)


def test_products_of_one_operand_are_one_and_long_sums_are_cut() -> None:
    assert targets(traced(7)[2])["matmul.default"] == 3
    found = targets(traced(300)[2])
    assert found["matmul.default"] == 2
    assert found["long_product"] == 1


NO_INPUTS = ("call_function", "get_attr", "output")


def test_nothing_is_computed_that_no_input_changes(family: DecoderBundle) -> None:
    backend = torch_cuda_backend.open_on(family, "cpu")
    assert list(backend._program) == list(family.manifest.token_buckets)
    for program in backend._program.values():
        of_inputs = {node for node in program.graph.nodes if node.op not in NO_INPUTS}
        for node in program.graph.nodes:
            if node.op == "call_function":
                assert of_inputs.intersection(node.all_input_nodes), node
                of_inputs.add(node)


def test_decoders_of_one_graph_share_its_programs(streaming_bundle: DecoderBundle) -> None:
    one, other = (torch_cuda_backend.open_on(streaming_bundle, "cpu") for _ in range(2))
    assert list(one._program) == list(streaming_bundle.manifest.token_buckets)
    for bucket, program in one._program.items():
        assert other._program[bucket] is program


def test_programs_of_one_network_share_their_constants(streaming_bundle: DecoderBundle) -> None:
    backend = torch_cuda_backend.open_on(streaming_bundle, "cpu")
    of_each = [dict(program.named_buffers()) for program in backend._program.values()]
    assert len(of_each) > 1
    assert all(len(constants) > 3 for constants in of_each)
    addresses = [{value.data_ptr() for value in constants.values()} for constants in of_each]
    assert all(found == addresses[0] for found in addresses)


def test_the_programs_asked_for_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_program, "N_PROGRAMS_KEPT", 2)
    programs = torch_program.Programs(Products(), torch.device("cpu"))
    inputs = [[torch.randn(4, 8), torch.randn(n, 8)] for n in (5, 6, 7)]
    first, second = programs.of(inputs[0]), programs.of(inputs[1])
    assert programs.of(inputs[0]) is first
    programs.of(inputs[2])
    assert programs.of(inputs[0]) is first
    assert programs.of(inputs[1]) is not second


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_cut_product_is_the_product(n_sum: int, n_terms: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = torch.from_numpy(rng.normal(size=(2, 3, n_sum)))
    right = torch.from_numpy(rng.normal(size=(2, n_sum, 4)))
    cut = torch_program.long_product(left, right, min(n_terms, n_sum))
    torch.testing.assert_close(cut, left @ right)
