"""Inputs made from good ones: a few edits each, drawn by hypothesis.

`SPIKELOOP_EXAMPLES` says how many each surface gets; CI draws few, `make fuzz` 100,000.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from random import Random
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


def fuzz(share: int = 1) -> Callable[[Test], Test]:
    """Run a test on its share of the examples, in rounds; the test takes `i_round` first."""
    n_examples = -(-EXAMPLES // share)
    n_rounds = -(-n_examples // ROUND_AT_MOST)
    chosen = settings(
        max_examples=min(n_examples, ROUND_AT_MOST),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )
    return lambda test: pytest.mark.parametrize("i_round", range(n_rounds))(chosen(test))


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
    return st.randoms(use_true_random=True).map(_odd)


def _odd(rng: Random, depth: int = 2) -> Json:
    kind = rng.choice(("known", "whole", "number", "text", "list", "table"))
    if kind == "whole":
        return rng.choice((1, -1)) * rng.getrandbits(rng.choice((3, 8, 31, 64, 70)))
    if kind == "number":
        return rng.choice(
            (rng.random(), rng.gauss(0, 1e3), rng.random() * 10.0 ** rng.randint(-300, 300))
        )
    if kind == "text":
        return "".join(
            chr(rng.choice((rng.randrange(128), rng.randrange(0xD7FF)))) for _ in range(8)
        )
    if depth and kind in ("list", "table"):
        inside = [_odd(rng, depth - 1) for _ in range(rng.randint(0, 4))]
        return inside if kind == "list" else {f"k{i}": one for i, one in enumerate(inside)}
    return deepcopy(rng.choice(_ODD))


@st.composite
def altered(draw: st.DrawFn, content: Json, changes_at_most: int = 3) -> Json:
    """A JSON value some of whose parts are replaced, taken out or named otherwise."""
    rng = draw(st.randoms(use_true_random=True))
    held = deepcopy(content)
    for _ in range(rng.randint(1, changes_at_most)):
        places = list(_places(held))
        if not places:
            break
        parent, key = rng.choice(places)
        kind = rng.choice(("replace", "replace", "delete", "add"))
        if kind == "replace":
            parent[key] = _odd(rng)
        elif kind == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice(("", "x", "schema", "\0"))] = _odd(rng)
        else:
            parent.insert(key, _odd(rng))
    return held


def _places(held: Json) -> Iterator[tuple[Json, Any]]:
    """Yield each part of a JSON value: what holds it, and its key there."""
    inside = (
        held.items()
        if isinstance(held, dict)
        else enumerate(held)
        if isinstance(held, list)
        else ()
    )
    for key, one in inside:
        yield held, key
        yield from _places(one)
