"""Config files, lists of clients and key files: any text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from calibration.errors import CalibrationError
from calibration.wizard.config import load_config as load_calibration
from decoders.config import load_config as load_training
from decoders.errors import DecodersError
from export.errors import SigningError
from export.signing.keys import read_signing_key, write_signing_key
from service.config import ServeConfig, load_config
from service.errors import ConfigError
from streams.errors import StreamsError
from streams.wire.authentication import new_pair
from streams.wire.clients import Client, client_entry, read_clients
from streams.wire.curve_keys import read_curve_keys, write_curve_keys
from streams.wire.roles import Role
from tests.fuzz.mutations import fuzz, mutated, odd_json
from tests.fuzz.sentences import check_refusal

CONFIGS = Path(__file__).parents[2] / "configs"
Load = Callable[[Path], Any]
LOADERS: dict[str, tuple[Load, str]] = {
    "serve": (lambda path: load_config(path, ServeConfig), "serve*.toml"),
    "train": (load_training, "train*.toml"),
    "calibrate": (load_calibration, "calibrate.toml"),
}
N_TESTS = 5
REFUSALS = (ConfigError, CalibrationError, DecodersError, StreamsError)


@pytest.fixture(scope="module")
def file(quick_folder: Path) -> Path:
    path = quick_folder / "file.toml"
    path.touch(mode=0o600)
    return path


@cache
def seeds_of(pattern: str) -> list[bytes]:
    """Each config, and what is left of it without its comments, where an edit tells."""
    whole = [path.read_bytes() for path in sorted(CONFIGS.glob(pattern))]
    return [*whole, *(re.sub(rb"(?m) *#.*$|^\n", b"", one) for one in whole)]


@pytest.mark.parametrize("kind", LOADERS)
@fuzz(share=N_TESTS)
def test_bytes_of_a_config(rng: Random, kind: str, file: Path) -> None:
    load, pattern = LOADERS[kind]
    file.write_bytes(mutated(rng, seeds_of(pattern)))
    check_refusal(lambda: load(file), *REFUSALS)


@fuzz(share=N_TESTS)
def test_odd_values_of_every_key(rng: Random, file: Path) -> None:
    section = rng.choice(sorted(ServeConfig.model_fields))
    model: Any = ServeConfig.model_fields[section].annotation
    key = rng.choice(sorted(model.model_fields))
    try:  # JSON writes most values as TOML does
        text = f"[{section}]\n{key} = {json.dumps(odd_json(rng))}\n"
        file.write_text(text)
    except (UnicodeEncodeError, ValueError):
        return
    check_refusal(lambda: load_config(file, ServeConfig), ConfigError)


@fuzz(share=N_TESTS)
def test_lists_of_clients_and_keys(rng: Random, file: Path) -> None:
    clients = "".join(client_entry(Client(role.title, role, new_pair()[0])) for role in Role)
    file.write_bytes(mutated(rng, [clients.encode()]))
    check_refusal(lambda: read_clients(file), StreamsError)
    folder = file.parent / "keys"
    if not folder.exists():
        write_curve_keys(folder, new_pair(), new_pair())
        write_signing_key(folder, "lab")
    seeds = [(folder / name).read_bytes() for name in ("server.json", "lab.signing.json")]
    file.write_bytes(mutated(rng, seeds))
    check_refusal(lambda: read_curve_keys(file), StreamsError)
    check_refusal(lambda: read_signing_key(file), SigningError)
