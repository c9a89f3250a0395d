"""Compiling a function for this machine: once, by its own signature, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(
    signature: Any, *, reordered: bool = False, frees_interpreter: bool = False
) -> Callable[[_Function], _Function]:
    """Compile a function for this machine, once: what comes out is kept beside its source.

    Each by its own signature, not by its first call: a caller that may reorder sums would lend
    that leave, and numbers that are rounded by adding a large one would not be any more.

    Args:
        signature: numba's types for its arguments and its result.
        reordered: sums may be added up in any order; nothing else is assumed about numbers, so
            that a NaN comes out where one goes in.
        frees_interpreter: others may run meanwhile: for what takes longer than a switch of threads.
    """
    freedom = {"reassoc", "contract", "arcp", "nsz"} if reordered else False
    compiler: Callable[[_Function], _Function] = njit(
        signature, cache=True, error_model="numpy", fastmath=freedom, nogil=frees_interpreter
    )
    return compiler
