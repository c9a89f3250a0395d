"""Units numbered from 0 where the decoder's are from 1, and the other way round."""

from __future__ import annotations

import pytest

from service.telemetry.unit_numbers import shift_of, strangers_of

KNOWN = [f"ch{c}/u1" for c in range(1, 33)]


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([f"ch{c}/u1" for c in range(32)], "channel numbers look 1 lower"),
        ([f"ch{c}/u1" for c in range(2, 34)], "channel numbers look 1 higher"),
        ([f"ch{c}/u0" for c in range(1, 33)], "unit numbers look 1 lower"),
        (KNOWN, ""),
        (KNOWN[:20], ""),
        ([*KNOWN, "ch99/u1"], ""),
        (["ch0/u1", "ch1/u1"], ""),
        ([], ""),
    ],
)
def test_a_shift_is_told(seen: list[str], said: str) -> None:
    found = shift_of(seen, KNOWN)
    assert said in found
    assert bool(said) == bool(found)


def test_bare_units_and_labels() -> None:
    known = [f"u{i}" for i in range(1, 20)]
    assert "unit numbers look 1 lower" in shift_of([f"u{i}" for i in range(19)], known)
    assert shift_of([f"electrode{i}" for i in range(19)], known) == ""


def test_sort_codes_that_the_decoder_lacks_are_named_with_the_line_that_leaves_them_out() -> None:
    seen = {f"ch{c}/u{u}": 10 + u for c in range(1, 33) for u in (0, 1, 255)}
    said = strangers_of(seen, KNOWN)
    assert "64 of the 96" in said
    assert "ch1/u255" in said
    assert "ignore_units = [0, 255]" in said
    assert strangers_of(dict.fromkeys(KNOWN, 3), KNOWN) == ""
    assert "ignore_units" not in strangers_of({"u99": 3}, ["u1"])
