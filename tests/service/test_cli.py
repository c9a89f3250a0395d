"""The command line: light to start, and clear about what it cannot do."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from export.bundle import open_bundle
from export.shipped import bundle_path
from service.cli import GROUPS, SUBGROUPS, main, make_app
from service.cli.lacking import lacking_extra
from service.cli.make import _baselines
from service.cli.registry import _quality
from service.daemon.control import HANDLERS
from tests.system.running import unique

HEAVY = ("torch", "onnxruntime", "pylsl", "zmq", "numpy", "pynwb", "rich")


def ran(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of `spikeloop ARGUMENTS`, in a process of its own."""
    command = [sys.executable, "-c", "import sys; from service.cli import main; sys.exit(main())"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from service.cli import main\n"
        f"main({arguments!r})\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Usage: spikeloop" in done.stdout
    assert not set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("lightning_fabric", ["train", "x.toml"], "train"),
        ("torch", ["export", "runs/x", "-o", "y"], "train"),
        ("h5py", ["calibrate", "x.toml"], "train"),
    ],
)
def test_a_package_that_is_not_installed_is_told_with_its_extra(
    module: str, arguments: list[str], extra: str
) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from service.cli import main\n"
        f"sys.exit(main({arguments!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"needs the package {module}" in done.stderr
    assert f"spikeloop[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_extra_with_the_package_is_proposed_and_none_for_a_package_of_ours() -> None:
    assert "spikeloop[tune]" in str(lacking_extra(ModuleNotFoundError(name="optuna")))
    assert "spikeloop[cpu]" in str(lacking_extra(ModuleNotFoundError(name="onnxruntime")))
    assert lacking_extra(ModuleNotFoundError(name="streams.gone")) is None


COMMANDS = [
    *((name,) for group in GROUPS for name in group.COMMANDS),
    *((group, name) for group, module in SUBGROUPS.items() for name in module.COMMANDS),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_a_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[2].strip()
    _, _, options = told.partition("Options:\n")
    rows = re.split(r"^  (?=--|-\w)", options, flags=re.M)[1:]
    assert rows
    for row in rows:
        named, *text = re.split(r"\s{2,}", row.strip())
        assert text, f"{named} has no help"


def parameters() -> Iterator[tuple[str, Any]]:
    """Every parameter in the tree of commands, with its command's words."""

    def walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        assert command.help, f"{words} has no help"
        yield from ((words, parameter) for parameter in command.params)
        for name, one in getattr(command, "commands", {}).items():
            yield from walk(one, f"{words} {name}")

    yield from walk(typer.main.get_command(make_app()), "spikeloop")


def test_every_argument_and_option_in_the_tree_says_what_it_is() -> None:
    found = list(parameters())
    assert {words for words, _ in found} >= {f"spikeloop {' '.join(words)}" for words in COMMANDS}
    mute = [
        f"{words} {parameter.name}"
        for words, parameter in found
        if len(getattr(parameter, "help", None) or "") < len("FOLDER")
    ]
    assert mute == []


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"spikeloop {version('spikeloop')}\n"


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for name, *_ in COMMANDS:
        assert f"\n  {name} " in told


@pytest.mark.parametrize(
    "arguments",
    [[], ["decode"], ["serve"], ["serve", "a.toml", "--loud"], ["watch", "--count", "many"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "--help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "near"),
    [(["statsu"], "status"), (["bench", "lop"], "loop"), (["watch", "--cuont", "1"], "--count")],
)
def test_what_is_unknown_is_told_with_what_is_near(
    arguments: list[str], near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert near in capsys.readouterr().err


def test_a_config_that_is_not_there_is_one_line_and_2(tmp_path: Path) -> None:
    code, told = ran("serve", str(tmp_path / "none.toml"))
    assert code == 2
    assert told.startswith("spikeloop: ")
    assert "none.toml" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("command", ["train", "export"])
def test_training_that_cannot_be_is_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "out")] if command == "export" else []
    assert main([command, str(tmp_path / "none"), *out]) == 2
    assert capsys.readouterr().err.startswith("spikeloop: ")


def test_a_bundle_that_is_not_there_is_4(tmp_path: Path) -> None:
    config = tmp_path / "lab.toml"
    config.write_text(f'[decoder]\nbundle = "{tmp_path / "none"}"\n')
    code, told = ran("serve", str(config))
    assert code == 4
    assert str(tmp_path / "none") in told


def test_the_table_of_baselines_is_whole_in_80_columns() -> None:
    velocity = {"r2": [0.804, -0.696], "ci": [[0.77, 0.83], [0.61, 0.76]]}
    result = {"outputs": {"velocity": velocity}, "fit_s": 9.0, "decode_ms": {"p50": 0.004}}
    console = Console(width=80, file=io.StringIO())
    console.print(_baselines("M1-monkey/2000-01-01/m1_center_out", {"wiener": result}))
    told = console.file.getvalue()
    assert "decode p50" in told
    assert "0.004 ms" in told


def test_the_quality_of_a_decoder_is_told_in_words() -> None:
    r2 = {"velocity": [0.8434, 0.8682], "speed": [0.7]}
    assert _quality(r2) == "R2 velocity 0.84 / 0.87, speed 0.70"
    assert _quality(None) == "not verified"


@pytest.mark.parametrize("command", ["adapt", "evaluate"])
def test_the_shipped_decoder_is_a_bundle_like_any(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "out")] if command == "adapt" else []
    assert main([command, "shipped:demo", str(tmp_path / "none.nwb"), *out]) == 2
    assert "no file" in capsys.readouterr().err


def test_the_shipped_decoder_is_taken_into_a_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = ["--registry", str(tmp_path / "bundles")]
    assert main(["add", "shipped:demo", "--why", "to begin with", *registry]) == 0
    assert open_bundle(bundle_path("shipped:demo")).manifest.id in capsys.readouterr().out


def test_a_daemon_that_is_not_there_is_7(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--control", "ipc:///nowhere/at/all"]) == 7
    assert "spikeloop serve CONFIG.toml" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "pause", "resume", "stop"])
def test_a_small_command_is_one_that_the_daemon_knows(command: str) -> None:
    assert command in HANDLERS


NOT_IN_CPU = ("h5py", "pynwb", "hdmf", "pyxdf", "torch", "scipy", "matplotlib", "onnx", "jinja2")
"""What `spikeloop[cpu]` does not install."""


def with_cpu_alone(*arguments: str) -> tuple[int, str]:
    """Run a command where nothing but `spikeloop[cpu]` can be imported."""
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_IN_CPU!r}))\n"
        "from service.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_subject_lives_where_the_daemon_alone_is_installed() -> None:
    code, told = with_cpu_alone("simulate", "--name", unique("bare"), "--seconds", "0.1")
    assert (code, "spikes sent" in told) == (0, True), told


def test_a_session_that_cannot_be_written_names_the_extra(tmp_path: Path) -> None:
    code, told = with_cpu_alone("simulate", "--write", str(tmp_path / "day.nwb"))
    assert code == 2
    assert "spikeloop[nwb]" in told
