"""Both ways from a pull to tokens: every test of a step holds for either."""

from __future__ import annotations

import pytest

from streams.spikes.steps import PLAIN, compiled_steps

COMPILED = compiled_steps()
BOTH_WAYS = pytest.mark.parametrize("steps", [PLAIN, COMPILED], ids=["numpy", "numba"])
