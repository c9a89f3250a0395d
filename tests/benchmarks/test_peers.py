"""Other people's loops beside ours: their environment, their programs, ratios within a round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import environment
from benchmarks.peers.asked import AskedProgram
from benchmarks.peers.per_decode import summed_up
from service.bench.rig import ProcessFailedError
from service.errors import ConfigError

ROOT = Path(__file__).parents[2]
ECHO = "import sys\nfor line in sys.stdin: print('{\"said\": ' + line.strip() + '}', flush=True)\n"


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=5))
def test_ratios_are_taken_within_a_round(rounds: list[tuple[float, float]]) -> None:
    told = summed_up([{"peer": [a] * 3, "ours": [b] * 3} for a, b in rounds], "ours")
    assert told["peer"]["median_ratio"] == pytest.approx([a / b for a, b in rounds])
    assert told["ours"]["p99_ratio"] == pytest.approx([1.0] * len(rounds))
    assert told["peer"]["median_ms"] == pytest.approx([a for a, _ in rounds])


def test_the_peers_packages_are_those_of_the_extra() -> None:
    required = [
        "numpy>=1.26", "ezmsg>=3.10; extra == 'peers'", 'torch>=2; extra == "peers"',
        "torch>=2; extra == 'train'",
    ]  # fmt: skip
    assert environment.packages(required) == ["ezmsg>=3.10", "torch>=2"]
    with pytest.raises(ConfigError, match="no extra `peers`"):
        environment.packages(required[:1])


def test_an_interpreter_without_the_peers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no interpreter"):
        environment.interpreter(tmp_path / "python", lambda text: None)
    here = Path(sys.executable)
    with pytest.raises(ConfigError, match="lacks no_such_module: install"):
        environment.interpreter(here, lambda text: None, ("numpy", "no_such_module"))
    assert environment.interpreter(here, lambda text: None, ("numpy",)) == here


def test_the_peers_programs_use_nothing_of_ours() -> None:
    for path in environment.PROGRAMS.glob("*.py"):
        text = path.read_text()
        rooms = ("streams", "decoders", "export", "calibration", "service")
        assert not any(f"{verb} {room}" in text for room in rooms for verb in ("import", "from"))
        compile(text, path.name, "exec")


def test_a_program_answers_what_it_is_asked(tmp_path: Path) -> None:
    program = tmp_path / "echo.py"
    program.write_text(ECHO)
    with AskedProgram([sys.executable, str(program)], tmp_path / "err") as echo:
        assert [echo.ask("3"), echo.ask("4")] == [{"said": 3}, {"said": 4}]


def test_a_program_that_ends_instead_is_quoted(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit('no such model')\n")
    command = [sys.executable, str(program)]
    with (
        AskedProgram(command, tmp_path / "err") as broken,
        pytest.raises(ProcessFailedError, match=r"(?s)broken ended: .*no such model"),
    ):
        broken.ask("1")


def test_the_command_shows_every_option() -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for option in ("units", "rate", "hop-ms", "seconds", "block-ms", "rounds", "python", "json"):
        assert f"--{option}" in done.stdout


def test_an_interpreter_that_is_not_there_is_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--python", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "no interpreter" in done.stderr) == (2, True)
