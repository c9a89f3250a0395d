"""The submission's Dockerfile copies what is there, and its commands are the command line's."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.parsing import parsed

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "falcon" / "Dockerfile").read_text()
LINES = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.M)).splitlines()


def told(instruction: str) -> list[str]:
    """What follows each line of that instruction."""
    return [line.partition(" ")[2] for line in LINES if line.startswith(instruction + " ")]


def variables() -> dict[str, str]:
    return {
        name: value
        for line in (*told("ARG"), *told("ENV"))
        for name, _, value in (part.partition("=") for part in shlex.split(line))
        if not value.startswith("$")
    }


@pytest.mark.parametrize("folder", ["streams", "decoders", "export", "calibration", "service"])
def test_every_package_is_copied(folder: str) -> None:
    assert f"{folder} /spikeloop/{folder}" in told("COPY")


def test_what_is_copied_exists() -> None:
    for line in told("COPY"):
        *sources, _ = line.split()
        assert all(source.startswith("$") or (ROOT / source).exists() for source in sources)


def test_packages_of_the_wheel_are_all_copied() -> None:
    packages = re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert packages is not None
    copied = " ".join(told("COPY"))
    assert all(f"/spikeloop/{name}" in copied for name in json.loads(packages[1]))


def test_the_variables_that_evalai_uses_are_set() -> None:
    assert {
        "PREDICTION_PATH": "/submission/submission.csv",
        "PREDICTION_PATH_LOCAL": "/tmp/submission.pkl",
        "GT_PATH": "/tmp/ground_truth.pkl",
        "EVAL_DATA_PATH": "/dataset/evaluation_data",
        "EVALUATION_LOC": "remote",
    }.items() <= variables().items()


def test_its_commands_are_the_command_lines() -> None:
    commands = [json.loads(told("CMD")[0])[2], *(one for one in told("RUN") if "falcon /" in one)]
    assert len(commands) == 2
    for command in commands:
        filled = re.sub(r"\$(\w+)", lambda match: variables()[match[1]], command)
        program, *arguments = shlex.split(filled)
        assert program == "spikeloop"
        read = parsed(arguments)
        assert (read["task"], read["phase"]) in (("m1", "test"), ("m1", None))
        assert read["bundle"] == Path("/decoders")
