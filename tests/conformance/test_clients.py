"""Every client in `clients/` that can run here answers the recorded stream as it must."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from streams.wire.packed import REASONS
from tests.conformance.clients import CLIENTS, MAKERS, LackingError
from tests.conformance.runner import ClientFailure, play
from tests.conformance.stream import read_stream

SOURCES = (
    "python/spikeloop_client.py",
    "node/spikeloop.js",
    "cpp/spikeloop.hpp",
    "csharp/SpikeloopFollower.cs",
    "matlab/spikeloop_read_decode.m",
)


@pytest.mark.parametrize("source", SOURCES)
def test_a_client_knows_every_reason_by_its_code(source: str) -> None:
    text = re.sub(r"(\s|\.\.\.)+", " ", (CLIENTS / source).read_text())
    assert ", ".join(f'"{reason}"' for reason in REASONS) in text.replace("'", '"')


@pytest.mark.parametrize("name", MAKERS)
def test_a_client_answers_as_it_must(name: str, tmp_path: Path) -> None:
    try:
        program = MAKERS[name](tmp_path)
    except LackingError as err:
        pytest.skip(str(err))
    n_answers = sum("answer" in step for step in read_stream())
    assert play(program.command, program.folder) == n_answers


@pytest.mark.parametrize(
    ("rule", "broken", "step"),
    [
        ('elif decode["validity"] != "ok":', "elif False:", "not enough input yet"),
        ("elif age_s > self.stale_s:", "elif False:", "under way for too long"),
        ("frames[0] not in TOPICS", "not frames[0].startswith(b'decode')", "it is not gone"),
        ("self._lost += ahead - 1", "pass", "three are lost"),
        ("if ahead <= 0:", "if False:", "what was refused is counted"),
        ("if version != 1 or not whole", "if not whole", "a longer head"),
        ("t - self._t_heard >= self.gone_s", "False", "nothing at all"),
    ],
)
def test_a_client_that_breaks_a_rule_fails(
    rule: str, broken: str, step: str, tmp_path: Path
) -> None:
    for path in (CLIENTS / "python").glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    client = tmp_path / "spikeloop_client.py"
    assert client.read_text().count(rule) == 1
    client.write_text(client.read_text().replace(rule, broken))
    with pytest.raises(ClientFailure, match=step):
        play((sys.executable, "conformance.py"), tmp_path)
