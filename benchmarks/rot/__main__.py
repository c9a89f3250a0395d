"""`python -m benchmarks.rot`: a bit flips in a table of a running daemon, every minute."""

from __future__ import annotations

from typing import Annotated

from benchmarks.command import AsJson, Option, main
from benchmarks.rot.hour import NOT_HELD, rot


def run(
    minutes: Annotated[float, Option(help="Length.")] = 60.0,
    every_s: Annotated[float, Option(help="Seconds from one flipped bit to the next.")] = 60.0,
    backend: Annotated[str, Option(help="Runs the decoder.")] = "numba-cpu",
    seed: Annotated[int, Option(help="Of the bits.")] = 0,
    json_: AsJson = False,
) -> int:
    """Flip a bit of a decoder in service again and again, from outside, and tell what came of it.

    Ends with code 8 if a bit was not noticed in the time that the daemon states, or a decode that
    may have come from a damaged table was `ok` for longer.
    """
    return 0 if rot(minutes * 60.0, every_s, backend, seed, as_json=json_) else NOT_HELD


if __name__ == "__main__":
    main(run)
