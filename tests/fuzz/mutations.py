"""Inputs made from good ones: a few edits each, drawn from numbered seeds.

`SPIKELOOP_EXAMPLES` says how many each surface gets; CI draws few, `make fuzz` 100,000. Each input
is drawn from a `Random` of its own, which a failure names. Hypothesis would do the same for 5 ms an
input, ten times what most of them cost to read, and remembers all that it drew.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import wraps
from random import Random
from typing import Any

import pytest

EXAMPLES = int(os.environ.get("SPIKELOOP_EXAMPLES", "50"))
ROUND_AT_MOST = 10_000
"""Inputs of one round, after which the memory is told."""

KINDS = (*("flip", "byte", "insert", "delete", "repeat", "number") * 3, "cut")
"""Of edits; few cut, as what is cut off cannot be damaged any more."""

NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)

Test = Callable[..., None]
Json = Any


def fuzz(share: int = 1) -> Callable[[Test], Test]:
    """Run a test on its share of the inputs, in rounds.

    Args:
        share: tests that a surface's inputs are divided among.

    The test takes `rng` first, from which it draws one input.
    """
    n_inputs = -(-EXAMPLES // share)
    rounds = [
        range(first, min(first + ROUND_AT_MOST, n_inputs))
        for first in range(0, n_inputs, ROUND_AT_MOST)
    ]

    def decorated(test: Test) -> Test:
        @wraps(test)
        def run(seeds: range, **fixtures: Any) -> None:
            for seed in seeds:
                try:
                    test(rng=Random(seed), **fixtures)
                except BaseException as err:
                    err.add_note(f"of the input of Random({seed})")
                    raise

        told = inspect.signature(test)
        seeds = inspect.Parameter("seeds", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [one for one in told.parameters.values() if one.name != "rng"]
        run.__signature__ = told.replace(parameters=[seeds, *parameters])  # type: ignore[attr-defined]
        in_rounds: Test = pytest.mark.parametrize("seeds", rounds, ids=str)(run)
        return in_rounds

    return decorated


def mutated(rng: Random, seeds: Sequence[bytes], edits_at_most: int = 6) -> bytes:
    """One of the seeds after some edits: bytes changed, put in, taken out, repeated, cut off."""
    held = bytearray(rng.choice(seeds))
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


def odd_json(rng: Random, depth: int = 2) -> Json:
    """A value where another was expected."""
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
        inside = [odd_json(rng, depth - 1) for _ in range(rng.randint(0, 4))]
        return inside if kind == "list" else {f"k{i}": one for i, one in enumerate(inside)}
    return deepcopy(rng.choice(_ODD))


def altered(rng: Random, content: Json, changes_at_most: int = 3) -> Json:
    """A JSON value some of whose parts are replaced, taken out or named otherwise."""
    held = deepcopy(content)
    for _ in range(rng.randint(1, changes_at_most)):
        places = list(_places(held))
        if not places:
            break
        parent, key = rng.choice(places)
        kind = rng.choice(("replace", "replace", "delete", "add"))
        if kind == "replace":
            parent[key] = odd_json(rng)
        elif kind == "delete":
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice(("", "x", "schema", "\0"))] = odd_json(rng)
        else:
            parent.insert(key, odd_json(rng))
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
