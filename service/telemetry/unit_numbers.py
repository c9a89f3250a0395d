"""Hints from the firing units' numbers, if they are not the decoder's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from export.manifest import Manifest
from streams.errors import StreamsError
from streams.unit_keys import parse_key

FEWEST_UNITS = 8
"""Fewer units than that fit a shifted table by chance."""

Ids = tuple[int, ...]


class Warned(NamedTuple):
    """An event and its warning."""

    event: str
    warning: str


def shift_of(seen: Collection[str], known: Collection[str]) -> str:
    """Say by what the units seen are shifted against those known; "" where they are not.

    A sender that counts from 0 beside a recording that counts from 1 gives nearly every unit its
    neighbour's place in the decoder.

    Args:
        seen: keys that have fired.
        known: the decoder's keys.
    """
    ours, theirs = _ids(known), _ids(seen)
    strange = theirs - ours
    if len(theirs) < FEWEST_UNITS or not strange:
        return ""
    for place, what in ((0, "channel"), (1, "unit")):
        for by in (1, -1):
            moved = {_moved(ids, place, -by) for ids in theirs if len(ids) > place}
            if len(moved) == len(theirs) and moved <= ours:
                name = "unit" if len(next(iter(theirs))) == 1 else what
                return (
                    f"the source's {name} numbers look {abs(by)} {'higher' if by > 0 else 'lower'} "
                    "than the decoder's: does the sender count from 0 and the recording from 1, or "
                    "the other way round? Then nearly every unit has its neighbour's place"
                )
    return ""


def strangers_of(seen: Mapping[str, int], known: Collection[str]) -> str:
    """Name the units that the decoder does not know, the busiest first; "" where there is none.

    Args:
        seen: each key's spikes.
        known: the decoder's keys.
    """
    strange = sorted((key for key in seen if key not in known), key=lambda key: -seen[key])
    if not strange:
        return ""
    numbers = {key.rpartition("u")[2] for key in strange if "/u" in key}
    codes = {key.rpartition("u")[2] for key in known if "/u" in key}
    left_out = ", ".join(sorted(numbers - codes, key=int)[:5])
    hint = f" To leave out sort codes: `ignore_units = [{left_out}]` under [input]"
    return (
        f"the decoder does not know {len(strange)} of the {len(seen)} units that fire: "
        f"{', '.join(strange[:5])}{' ...' if len(strange) > 5 else ''}. Is it of another array, "
        f"or are the units numbered anew?{hint if left_out else ''}"
    )


class UnitNumbers:
    """Warns once per decoder if the numbers of the units suggest a mix-up."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def look(self, seen: Mapping[str, int], manifest: Manifest, reason: str) -> Iterator[Warned]:
        """Yield events and their warnings.

        Args:
            seen: each key's spikes.
            manifest: the active decoder's.
            reason: why its newest decode is not `ok`.
        """
        known = {unit.key for unit in manifest.units}
        found = [Warned("units_shifted", shift_of(seen, known))]
        if reason == "unknown_units":
            found.append(Warned("unknown_units", strangers_of(seen, known)))
        for one in found:
            if one.warning and (one.event, manifest.id) not in self._told:
                self._told.add((one.event, manifest.id))
                yield one


def _ids(keys: Collection[str]) -> set[Ids]:
    found = set()
    for key in keys:
        try:
            found.add(parse_key(key))
        except StreamsError:
            continue
    return found


def _moved(ids: Ids, place: int, by: int) -> Ids:
    return (*ids[:place], ids[place] + by, *ids[place + 1 :])
