"""Opens the backend that a config names, or the fastest one; what was tried before is reported."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from export.backends.table import AUTO, BACKENDS, Backend, Predecodes, parse_choice
from export.bundle import DecoderBundle
from export.choice.auto import open_fastest
from export.choice.gate import Attempt, OpenedBackend, open_one, refusal_of, require_parity
from export.errors import BackendUnavailable, ExportError
from streams.clock import Clock

__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "BackendUnavailable",
    "OpenedBackend",
    "Predecodes",
    "open_backend",
    "require_parity",
]


def open_backend(
    bundle: DecoderBundle,
    name: str = AUTO,
    fallback: Sequence[str] = (),
    clock: Clock | None = None,
    among: Collection[str] = (),
) -> OpenedBackend:
    """Open a backend for a bundle, warm it up, and hold it against the record and the hop.

    Args:
        bundle: the decoder.
        name: of the backend; `NAME:PRECISION` for another precision than fp32; `auto` for the
            fastest that passes.
        fallback: backends to try next, in this order, when it is refused.
        clock: times the runs of a backend that is named, see `open_one`.
        among: the backends that `auto` considers, see `open_fastest`.

    Raises:
        BackendUnavailable: none of them can run here, or a name is unknown.
        BundleError: those that can run disagreed with the record or were too slow.
    """
    names = [name, *fallback]
    for candidate in names if name != AUTO else fallback:
        parse_choice(candidate)
    refused: dict[str, ExportError] = {}
    for i, candidate in enumerate(names):
        try:
            if candidate == AUTO:
                opened = open_fastest(bundle, among)
                after = tuple(other for other in fallback if other != opened.choice)
                after = after or opened.next_choices
            else:
                opened, after = open_one(bundle, candidate, clock), tuple(names[i + 1 :])
        except ExportError as error:
            refused[candidate] = error
            continue
        before = tuple(Attempt(other, str(error)) for other, error in refused.items())
        return replace(opened, tried=before + opened.tried, next_choices=after)
    raise refusal_of(refused)
