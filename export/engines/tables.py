"""A bundle's tables in the shapes that its engines were made for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export.bundle import DecoderBundle, is_per_unit, tables_for
from export.errors import BundleError
from export.manifest import Graph, Tensor


def n_rows_of(bundle: DecoderBundle) -> int:
    """Rows of its tables that have one a unit; 0 where there is none."""
    per_unit = [tensor.name for tensor in bundle.manifest.graph.tables if is_per_unit(tensor)]
    return max((len(bundle.tables[name]) for name in per_unit), default=0)


def fitted_tables(
    signature: Graph, tables: Mapping[str, np.ndarray], n_rows: int, *, pads: bool = True
) -> dict[str, np.ndarray]:
    """Every table that the graph takes, padded to the rows that it was compiled for.

    Args:
        signature: of the bundle's graph.
        tables: the decoder's.
        n_rows: rows compiled for.
        pads: whether fewer rows may be padded; else they must be as many.

    Raises:
        BundleError: one is missing, of another shape or type, or has too many rows.
    """
    held = tables_for(signature, tables)
    for tensor in filter(is_per_unit, signature.tables):
        n = len(held[tensor.name])
        if n > n_rows or (n < n_rows and not pads):
            raise BundleError(
                f"`{tensor.name}` has {n} rows, the engine was made for {n_rows}: "
                "`spikeloop build` it anew for this bundle"
            )
        padded = np.zeros((n_rows, *held[tensor.name].shape[1:]), held[tensor.name].dtype)
        padded[:n] = held[tensor.name]
        held[tensor.name] = padded
    return held


def fixed_zeros(tensor: Tensor) -> np.ndarray:
    """Zeros for an input or output of known shape.

    Raises:
        BundleError: a length varies.
    """
    shape = [length for length in tensor.shape if isinstance(length, int)]
    if len(shape) != len(tensor.shape):
        raise BundleError(f"`{tensor.name}` has a length that varies: {list(tensor.shape)}")
    return np.zeros(shape, tensor.dtype)
