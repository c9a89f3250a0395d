"""Conditions on tables: what can be said, and that nothing else can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SessionError
from streams.sessions.conditions import rows_where

COLUMNS = {
    "quality": np.array(["good", "mua", "noise", "good"]),
    "snr": np.array([3.0, 1.5, np.nan, 0.5]),
    "channel": np.array([1, 2, 3, 4]),
    "passed": np.array([True, False, True, True]),
    "as_text": np.array(["True", "False", "false", "true"]),
    "as_number": np.array([1, 0, 0, 1]),
}


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("", [0, 1, 2, 3]),
        ("quality == 'good'", [0, 3]),
        ('quality != "good"', [1, 2]),
        ("quality in ['good', 'mua']", [0, 1, 3]),
        ("quality not in ('good',)", [1, 2]),
        ("channel in []", []),
        ("snr > 1", [0, 1]),
        ("1 < snr <= 3", [0, 1]),
        ("not snr > 1", [2, 3]),
        ("snr > -1 and channel >= 2", [1, 3]),
        ("quality == 'noise' or (passed and snr < 1)", [2, 3]),
        ("passed", [0, 2, 3]),
        ("passed == True", [0, 2, 3]),
        ("passed == 1", [0, 2, 3]),
        ("not passed", [1]),
        ("as_text", [0, 3]),
        ("as_number", [0, 3]),
        ("True", [0, 1, 2, 3]),
        ("channel == snr", []),
    ],
)
def test_what_can_be_said(condition: str, rows: list[int]) -> None:
    assert np.flatnonzero(rows_where(condition, COLUMNS, 4)).tolist() == rows


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("quality = 'good'", "cannot read the condition"),
        ("quality == good", "names 'good', which is no column.*quality \\('good', 'mua', 'noise'"),
        ("Quality == 'good'", "names 'Quality', which is no column"),
        ("snr == 'good'", "compares a text with a number"),
        ("quality > 1", "compares a text with a number"),
        ("snr", "takes column 'snr' as true or false"),
        ("quality and passed", "takes column 'quality' as true or false"),
        ("snr + 1 > 2", "may hold only"),
        ("abs(snr) > 1", "may hold only"),
        ("__import__('os').system('true') == 0", "may hold only"),
        ("quality.upper() == 'GOOD'", "may hold only"),
        ("[c for c in channel]", "may hold only"),
        ("channel is 1", "may hold only"),
        ("quality[0] == 'good'", "may hold only"),
        ("lambda: 1", "may hold only"),
        ("(x := 1) == 1", "may hold only"),
        ("channel in quality", "may hold only"),
        ("f'{channel}' == '1'", "may hold only"),
        ("(" * 400 + "passed" + ")" * 400, "cannot read the condition"),
        ("passed\x00", "cannot read the condition"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_all_else_is_refused(condition: str, text: str) -> None:
    with pytest.raises(SessionError, match=text):
        rows_where(condition, COLUMNS, 4)


@given(st.text(alphabet="abqualitysnr ()[]'=<>!&|.,0123456789notandorin", max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        rows = rows_where(text, COLUMNS, 4)
    except SessionError:
        return
    assert (rows.shape, rows.dtype) == ((4,), np.bool_)
