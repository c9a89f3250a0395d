"""Torch runs the decoder's own module, not its graph: the reference for every other backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from decoders.families import FAMILIES
from export.bundle import DecoderBundle, tables_for
from export.errors import BackendError, BundleError, NotProvidedError
from export.manifest import Graph
from streams.messages import Float32s, TokenWindow

OF_UNITS = ("units.", "identity.")
"""Weights that tell of units, for adaptation: the graph takes only what is folded of them."""


class TorchBackend:
    """Runs one bin per step.

    Args:
        module: takes the graph's inputs, gives its outputs, in the signature's order.
        signature: names and shapes.
        tables: the inputs that belong to the decoder.
        outputs: names of the outputs that are handed out.
    """

    name = "torch"
    precision = "fp32"
    library = f"torch {torch.__version__}"
    n_most_tokens: int | None = None

    def __init__(
        self,
        module: nn.Module,
        signature: Graph,
        tables: Mapping[str, np.ndarray],
        outputs: Sequence[str],
    ) -> None:
        self._module = module.eval()
        self._signature = signature
        self._outputs = tuple(outputs)
        self._tables: dict[str, Tensor] = {}
        self._memory: dict[str, Tensor] = {}
        self.set_tables(tables)
        self.reset()

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Float32s]:
        """Run one bin and advance the memory.

        Args:
            window: its tokens; none is legal.
            lead_s: how far ahead of the window's end to estimate.

        Returns:
            Per output, (dims,) float32 in physical units.

        Raises:
            BackendError: the run failed.
        """
        given = {
            "unit": torch.from_numpy(window.unit),
            "t_rel": torch.from_numpy(window.t_rel),
            "count": torch.from_numpy(window.count),
            "lead_s": torch.tensor([lead_s], dtype=torch.float32),
            **self._tables,
            **self._memory,
        }
        try:
            with torch.inference_mode():
                found = self._module(*(given[tensor.name] for tensor in self._signature.inputs))
        except (RuntimeError, IndexError) as error:
            raise BackendError(f"{self.name} failed on {len(window)} tokens: {error}") from error
        named = {t.name: v for t, v in zip(self._signature.outputs, found, strict=True)}
        self._memory = {name: named[f"{name}_out"] for name in self._signature.memory}
        return {name: named[name].numpy() for name in self._outputs}

    def reset(self) -> None:
        """Zero the memory."""
        inputs = [t for t in self._signature.inputs if t.name in self._signature.memory]
        self._memory = {t.name: torch.zeros([int(n) for n in t.shape]) for t in inputs}

    def memory(self) -> dict[str, np.ndarray]:
        """Return copies of the memory's arrays, float32, by name."""
        return {name: value.numpy().copy() for name, value in self._memory.items()}

    def set_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on with the memory that `memory` of the same decoder returned."""
        self._memory = {name: torch.from_numpy(value.copy()) for name, value in memory.items()}

    def set_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Decode with other tables from the next step on.

        Raises:
            BundleError: an array is missing or has another shape or type than the graph takes.
        """
        taken = tables_for(self._signature, tables)
        self._tables = {name: torch.from_numpy(values) for name, values in taken.items()}
        # POYO's state holds its vocabularies too, which are no arrays.
        held = self._module.state_dict().items()
        weights = {name: value.numpy() for name, value in held if isinstance(value, Tensor)}
        self._fixed = weights | taken

    def fixed_arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays that a step reads and nothing writes to, by name."""
        return self._fixed


def open_cpu(bundle: DecoderBundle) -> TorchBackend:
    """The bundle's network on one core of the CPU; torch gets one thread in this process.

    Raises:
        BackendUnavailable: torch does not know the bundle's family.
        BundleError: the weights are not those of its network.
    """
    torch.set_num_threads(1)
    manifest = bundle.manifest
    outputs = [output.name for output in manifest.outputs]
    return TorchBackend(load_module(bundle), manifest.graph, bundle.tables, outputs)


def load_module(bundle: DecoderBundle) -> nn.Module:
    """The bundle's network with its weights.

    Raises:
        BackendUnavailable: the family is unknown, or the bundle does not tell the network's shape.
        BundleError: the weights are not those of its network.
    """
    family, config = bundle.manifest.family, bundle.manifest.training.get("config")
    if family not in FAMILIES or not isinstance(config, dict):
        raise NotProvidedError(
            f"torch cannot run {bundle.manifest.name!r}: its manifest has family {family!r} "
            f"{'and' if isinstance(config, dict) else 'and no'} `training.config`; torch runs "
            f"{', '.join(FAMILIES)} as `spikeloop export` writes them; use onnxruntime-cpu"
        )
    weights = {
        name: torch.from_numpy(value)
        for name, value in bundle.weights().items()
        if not name.startswith(OF_UNITS)
    }
    try:
        module = FAMILIES[family].step_module(config)
        module.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        raise BundleError(
            f"{bundle.path}: weights and `training.config` are not of one network: {error}; "
            "export the bundle again"
        ) from error
    return module
