"""`spikeloop init`: from a stream that is there to a config that `serve` runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.config import ServeConfig, load_config
from streams.exit_codes import ExitCode
from tests.system.conftest import UNIT_KEYS
from tests.system.running import ANY_PORT, Daemon, Process, clock, unique, wait_until
from tests.system.sources import Floats, Living

pytestmark = pytest.mark.alone

Run = Callable[..., Process]


@pytest.fixture
def living(stream: str) -> Iterator[Living]:
    """A sound stream of spikes that needs nobody to keep it alive."""
    source, over = Living(stream, UNIT_KEYS), threading.Event()

    def live() -> None:
        while not over.is_set():
            source.send_due()
            clock.sleep_until(clock.now() + 2e-3)

    thread = threading.Thread(target=live)
    thread.start()
    yield source
    over.set()
    thread.join()
    source.close()


def written(path: Path) -> dict[str, dict[str, Any]]:
    return tomllib.loads(path.read_text())


def test_a_stream_that_is_named_gets_a_config_that_serve_runs(
    run: Run, living: Living, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rig.toml"
    made = run(
        "init", str(path), "--stream", living.name, "--decoder", str(bundle), "--decode", ANY_PORT
    )
    assert made.code() == ExitCode.DONE
    assert f"spikeloop serve {path}" in made.out
    said = written(path)
    assert said["input"]["name"] == living.name
    assert said["input"]["simulate_if_absent"] is False
    assert said["decoder"]["bundle"] == str(bundle)
    daemon = Daemon(tmp_path, path)
    try:
        assert daemon.until_validity("ok")["decoder_id"]
    finally:
        daemon.kill()


def test_every_key_keeps_its_comment(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    assert run("init", str(path), "--stream", "simulated").code() == ExitCode.DONE
    template = Path("configs/serve.toml").read_text()
    commented = [line for line in template.splitlines() if " = " in line and " # " in line]
    lines = path.read_text().splitlines()
    assert sum(" = " in line and " # " in line for line in lines) == len(commented)
    assert lines[0] == f"# spikeloop serve {path}"
    assert load_config(path, ServeConfig).input.simulate_if_absent


def test_a_file_that_is_there_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rig.toml"
    path.write_text("mine")
    assert run("init", str(path), "--stream", "simulated").code() == ExitCode.USAGE
    assert path.read_text() == "mine"
    assert run("init", str(path), "--stream", "simulated", "--force").code() == ExitCode.DONE


def test_channels_without_labels_are_named_by_an_option(
    run: Run, stream: str, bundle: Path, tmp_path: Path
) -> None:
    source = Floats(stream, ("", ""), "Spikes")
    path = tmp_path / "rig.toml"
    common = ("init", str(path), "--stream", stream, "--decoder", str(bundle))

    def sent(*arguments: str) -> Process:
        process = run(*common, *arguments)
        n = iter(range(10**6))
        wait_until(
            lambda: not process.is_alive,
            lambda: source.send([[float(next(n) % 8), 0.0]], [clock.now()]),
        )
        return process

    assert sent().code() == ExitCode.USAGE
    assert sent("--columns", "unit,amplitude").code() == ExitCode.DONE
    assert written(path)["input"]["columns"] == ["unit", "amplitude"]


def test_a_person_is_asked_five_questions(living: Living, bundle: Path, tmp_path: Path) -> None:
    path, (ours, theirs) = tmp_path / "rig.toml", pty.openpty()
    asked = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "init", str(path)],
        stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def read_until(text: str) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(ours, 4096).decode(errors="replace")

    answers = (living.name, "", str(bundle), "20", ANY_PORT)
    for i, answer in enumerate(answers, 1):
        read_until(f"{i}/5")
        os.write(ours, f"{answer}\n".encode())
    read_until("is written")
    assert asked.wait(30) == ExitCode.DONE
    os.close(ours)
    assert written(path)["output"]["decode"] == ANY_PORT
    assert written(path)["input"]["name"] == living.name


def test_a_stream_that_is_not_there_is_3(run: Run, tmp_path: Path) -> None:
    made = run("init", str(tmp_path / "rig.toml"), "--stream", unique("nobody"))
    assert made.code() == ExitCode.STREAM


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [
        ("--decode", "tcp://0.0.0.0:5570", ExitCode.USAGE),
        ("--decode", "5570", ExitCode.ADDRESS),
        ("--hop-ms", "30", ExitCode.USAGE),
        ("--decoder", "shipped:none", ExitCode.USAGE),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused(
    run: Run, tmp_path: Path, option: str, value: str, code: ExitCode
) -> None:
    path = tmp_path / "rig.toml"
    made = run("init", str(path), "--stream", "simulated", option, value)
    assert made.code() == code
    assert made.err.startswith("spikeloop: ")
    assert not path.exists()
