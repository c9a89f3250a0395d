"""`spikeloop bridge` answers what it cannot do with a line and an exit code."""

from __future__ import annotations

import pytest

from service.cli import main


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["openephys", "--electrode", "left"], 2, "not NAME=NUMBER"),
        (["json", "http://127.0.0.1:1"], 6, "tcp://HOST:PORT"),
        (["blackrock", "HUB1"], 3, "pip install pycbsdk"),
        (["plexon"], 2, "plexon"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bridge", *arguments]) == code
    assert told in capsys.readouterr().err
