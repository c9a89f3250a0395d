"""Both kernels: every test of a step from pull to tokens holds for either."""

from __future__ import annotations

import pytest

from streams.spikes.kernels.choose import NUMPY, numba_kernels

COMPILED = numba_kernels()
BOTH_WAYS = pytest.mark.parametrize("kernels", [NUMPY, COMPILED], ids=["numpy", "numba"])
