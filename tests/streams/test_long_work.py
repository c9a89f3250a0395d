"""Work that takes long says how far it is, and stops saying so when it is over."""

from __future__ import annotations

import threading

import pytest

from streams import long_work
from streams.long_work import LongWork


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "EVERY_S", 1e-3)


def lines_of(capsys: pytest.CaptureFixture[str], n: int) -> list[str]:
    """Wait for so many lines."""
    told = ""
    while len(told.splitlines()) < n:
        told += capsys.readouterr().err
    return told.splitlines()


def test_a_line_says_what_and_how_far(capsys: pytest.CaptureFixture[str]) -> None:
    with LongWork("training") as work:
        assert lines_of(capsys, 1)[0] == "training for 0 min"
        work.tell("step 3")
        assert lines_of(capsys, 3)[-1] == "training for 0 min: step 3"
    n_threads = threading.active_count()
    capsys.readouterr()
    assert threading.active_count() == n_threads
    assert capsys.readouterr().err == ""


def test_nothing_is_written_beside_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    n_threads = threading.active_count()
    with LongWork("training", has_bar=True) as work:
        work.tell("step 3")
        assert threading.active_count() == n_threads
    assert capsys.readouterr().err == ""


def test_the_lines_end_where_the_work_fails(capsys: pytest.CaptureFixture[str]) -> None:
    n_threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), LongWork("training"):
        _ = 1 / 0
    assert threading.active_count() == n_threads
