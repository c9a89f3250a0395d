"""A bundle's tables in the shapes that its engines were made for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from export.bundle import DecoderBundle, is_per_unit, require_fit
from export.errors import BundleError
from export.manifest import Graph, Tensor


def n_rows_of(bundle: DecoderBundle) -> int:
    """Rows of its tables that have one a unit; 0 where there is none."""
    per_unit = [tensor.name for tensor in bundle.manifest.graph.tables if is_per_unit(tensor)]
    return max((len(bundle.tables[name]) for name in per_unit), default=0)


def padded_table(tensor: Tensor, values: np.ndarray, n_rows: int) -> np.ndarray:
    """A table with rows of zeros up to `n_rows`, where it has one row a unit; else itself."""
    if not is_per_unit(tensor) or len(values) == n_rows:
        return np.ascontiguousarray(values)
    padded = np.zeros((n_rows, *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded


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
    for tensor in signature.tables:
        if tensor.name not in tables:
            raise BundleError(f"the graph takes a table {tensor.name!r}, none was given")
        require_fit(tensor, tables[tensor.name], "the new tables")
        n = len(tables[tensor.name])
        if is_per_unit(tensor) and (n > n_rows or (n < n_rows and not pads)):
            raise BundleError(
                f"`{tensor.name}` has {n} rows, the engine was made for {n_rows}: "
                "`spikeloop build` it anew for this bundle"
            )
    return {t.name: padded_table(t, tables[t.name], n_rows) for t in signature.tables}


def fixed_zeros(tensor: Tensor) -> np.ndarray:
    """Zeros for an input or output of known shape.

    Raises:
        BundleError: a length varies.
    """
    shape = [length for length in tensor.shape if isinstance(length, int)]
    if len(shape) != len(tensor.shape):
        raise BundleError(f"`{tensor.name}` has a length that varies: {list(tensor.shape)}")
    return np.zeros(shape, tensor.dtype)
