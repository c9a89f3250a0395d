"""Every file in `configs/` loads with the model of the command that it begins with."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from calibration.wizard.config import load_config as load_calibration
from decoders.config import load_config as load_training
from service.config import ServeConfig, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.toml"))
SERVE = CONFIGS / "serve.toml"
LOADERS: dict[str, Callable[[Path], Any]] = {
    "serve": lambda path: load_config(path, ServeConfig),
    "train": load_training,
    "calibrate": load_calibration,
}
FIRST_LOOK: dict[str, dict[str, Any]] = {
    "input": {"simulate_if_absent": True},
    "decoder": {"bundle": "shipped:demo"},
}
"""What `serve.toml` says beside the defaults, so that it runs as it stands."""
SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in ServeConfig.model_fields.items()
    if isinstance(field.annotation, type)
}
KEYS = [(name, key) for name, section in SECTIONS.items() for key in section.model_fields]


def lines_of(section: str) -> list[str]:
    """The lines of `serve.toml` under `[section]`."""
    return re.split(r"^\[(\w+)\].*$", SERVE.read_text(), flags=re.M)[1:][
        2 * list(SECTIONS).index(section) + 1
    ].splitlines()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_config_begins_with_the_command_that_uses_it_and_loads(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    command = re.fullmatch(rf"# spikeloop (\w+) configs/{re.escape(path.name)}", first)
    assert command, f"{path.name} begins with {first!r}"
    LOADERS[command[1]](path)


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_serve_toml_shows_every_key_with_a_comment(section: str, key: str) -> None:
    shown = [line for line in lines_of(section) if re.match(rf"(# )?{key} = \S+ +# \S", line)]
    assert len(shown) == 1


def test_serve_toml_says_the_defaults() -> None:
    said = tomllib.loads(SERVE.read_text())
    assert said["beat"].pop("hop_ms") == 20
    for name, section in SECTIONS.items():
        expected = section().model_dump(mode="json") | FIRST_LOOK.get(name, {})
        assert {key: expected[key] for key in said[name]} == said[name]


def test_serve_toml_names_the_defaults_that_it_departs_from() -> None:
    for name, changed in FIRST_LOOK.items():
        defaults = SECTIONS[name]().model_dump(mode="json")
        for key, value in changed.items():
            assert defaults[key] != value
            (line,) = (line for line in lines_of(name) if line.startswith(f"{key} = "))
            default = json.dumps(defaults[key])
            assert f"default: {default}" in line


def test_serve_toml_names_the_bounds_that_the_model_has() -> None:
    n_bounds = 0
    for name, section in SECTIONS.items():
        for key, field in section.model_fields.items():
            line = next(line for line in lines_of(name) if f"{key} = " in line)
            numbers = re.findall(r"-?[\d.]*\d", line.partition(" # ")[2])
            for constraint in field.metadata:
                for kind in ("ge", "gt", "le", "lt"):
                    bound = getattr(constraint, kind, None)
                    assert bound is None or str(bound) in numbers, line
                    n_bounds += bound is not None
    assert n_bounds >= 12
