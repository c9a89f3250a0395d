"""What releases and containers are made with names things that there are."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTAINERFILES = sorted((ROOT / "packaging").glob("Containerfile*"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_makes_targets_that_there_are(workflow: Path) -> None:
    run = [step["run"] for step in steps(workflow) if step.get("run", "").startswith("make ")]
    assert run
    assert {target for line in run for target in line.split()[1:]} <= TARGETS


def test_what_a_release_must_hold_is_there() -> None:
    """Else `make release-check`, which takes minutes, is the first to see it."""
    needed = runpy.run_path(str(ROOT / "packaging" / "release_check.py"))["NEEDED"]
    assert [name for name in needed if not (ROOT / name).is_file()] == []


def test_tests_run_on_every_python_that_is_supported() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())["jobs"][
        "test"
    ]
    first = job["strategy"]["matrix"]["python"][0]
    assert PROJECT["project"]["requires-python"] == f">={first}"


@pytest.mark.parametrize("file", CONTAINERFILES, ids=lambda path: path.name)
def test_a_container_installs_extras_that_go_together(file: Path) -> None:
    (named,) = re.findall(r"spikeloop\[([\w,]+)\] @", file.read_text())
    extras = named.split(",")
    assert set(extras) <= PROJECT["project"]["optional-dependencies"].keys()
    for pair in PROJECT["tool"]["uv"]["conflicts"]:
        assert not {one["extra"] for one in pair} <= set(extras)


@pytest.mark.parametrize("file", CONTAINERFILES, ids=lambda path: path.name)
def test_a_container_runs_as_nobody(file: Path) -> None:
    lines = file.read_text().splitlines()
    user = next(line.split()[1] for line in reversed(lines) if line.startswith("USER "))
    assert user.isdigit()
    assert int(user) > 0


def test_extras_that_bring_both_runtimes_are_said_to_exclude_each_other() -> None:
    """`pip` installs both, and the daemon is CPU-only without a word."""
    extras = PROJECT["project"]["optional-dependencies"]
    with_cpu = {
        name for name, of in extras.items() if any(one.startswith("onnxruntime>") for one in of)
    }
    with_gpu = {
        name for name, of in extras.items() if any(one.startswith("onnxruntime-gpu") for one in of)
    }
    said = {frozenset(one["extra"] for one in pair) for pair in PROJECT["tool"]["uv"]["conflicts"]}
    assert said == {frozenset((cpu, gpu)) for cpu in with_cpu for gpu in with_gpu}
