"""Inputs made from good ones: a few edits each, drawn by hypothesis.

`SPIKELOOP_EXAMPLES` says how many each surface gets; CI draws few, `make fuzz` 100,000.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("SPIKELOOP_EXAMPLES", "50"))
ROUND_AT_MOST = 5_000
"""Examples of one round: hypothesis remembers all of them, which would hide what our code keeps."""

KINDS = (*("flip", "byte", "insert", "delete", "repeat", "number") * 3, "cut")
"""Of edits; few cut, as what is cut off cannot be damaged any more."""

NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)

Test = Callable[..., None]
Json = Any


def fuzz(test: Test) -> Test:
    """Run a test on so many examples, in rounds; the test takes `i_round` first."""
    n_rounds = -(-EXAMPLES // ROUND_AT_MOST)
    configured = settings(
        max_examples=min(EXAMPLES, ROUND_AT_MOST),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )(test)
    return pytest.mark.parametrize("i_round", range(n_rounds))(configured)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], edits_at_most: int = 6) -> bytes:
    """One of the seeds after some edits: bytes changed, put in, taken out, repeated, cut off."""
    # Hypothesis draws small integers most often, which would damage the first bytes alone.
    rng = draw(st.randoms(use_true_random=True))
    held = bytearray(rng.choice(list(seeds)))
    for _ in range(rng.randint(0, edits_at_most)):
        at, kind = rng.randrange(max(1, len(held))), rng.choice(KINDS)
        if kind == "flip" and held:
            held[at] ^= 1 << rng.randrange(8)
        elif kind == "byte" and held:
            held[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B, 0x5B))
        elif kind == "insert":
            held[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == "delete":
            del held[at : at + rng.randint(1, 32)]
        elif kind == "repeat":
            held[at:at] = held[at : at + rng.randint(1, 64)] * rng.randint(1, 8)
        elif kind == "cut":
            del held[at:]
        elif kind == "number":  # lengths and counts are numbers of 2, 4 or 8 bytes
            n_bytes, value = rng.choice((2, 4, 8)), rng.choice(NUMBERS)
            held[at : at + n_bytes] = (value % 2 ** (8 * n_bytes)).to_bytes(n_bytes, "little")
    return bytes(held)


_ODD: tuple[Json, ...] = (
    None, True, 0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, "", "x", "\0", "\ud800",
    "a" * 5000, [], {}, [[]], {"": {}}, "../../x", "/dev/zero", "NaN", "1e999", [None] * 100,
)  # fmt: skip


def odd_json() -> st.SearchStrategy[Json]:
    """A value where another was expected."""
    plain = st.one_of(
        st.sampled_from(_ODD), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)
    )
    return st.one_of(
        plain, st.lists(plain, max_size=4), st.dictionaries(st.text(max_size=8), plain)
    )


@st.composite
def altered(draw: st.DrawFn, content: Json, changes_at_most: int = 3) -> Json:
    """A JSON value some of whose parts are replaced, taken out or named otherwise."""
    held = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, changes_at_most))):
        parent, key = None, None
        here = held
        while isinstance(here, (dict, list)) and here and draw(st.integers(0, 3)):
            parent = here
            key = draw(
                st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here)))
            )
            here = here[key]
        if parent is None:
            continue
        kind = draw(st.sampled_from(("replace", "replace", "delete", "add")))
        if kind == "replace":
            parent[key] = draw(odd_json())
        elif kind == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = draw(odd_json())
        else:
            parent.insert(key, draw(odd_json()))
    return held
