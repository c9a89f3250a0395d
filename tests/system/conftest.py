from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from export.bundle import open_bundle
from export.random_bundles.derived import derive_bundle
from streams.lsl.inlets import quieten
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.running import ANY_PORT, Daemon, Process, toml, unique
from tests.system.sources import Living

N_UNITS = 8
UNIT_KEYS = tuple(f"u{unit}" for unit in range(N_UNITS))
HOP_S = 0.02

quieten()


class ConfigWriter(Protocol):
    def __call__(self, stream: str, bundle: Path, **sections: dict[str, Any]) -> Path: ...


class DaemonStarter(Protocol):
    def __call__(
        self, stream: str, bundle: Path, *arguments: str, **sections: dict[str, Any]
    ) -> Daemon: ...


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows units u0 to u7; hop and bin of 20 ms."""
    path = tmp_path_factory.mktemp("system") / "tiny"
    write_tiny_bundle(path, UNIT_KEYS, HOP_S, HOP_S, with_position=True)
    return path


@pytest.fixture
def stream() -> str:
    """A stream name of this test's own."""
    return unique("spikes")


def write_config(folder: Path, stream: str, bundle: Path, **sections: dict[str, Any]) -> Path:
    """A config: one named stream, one bundle, free ports, a fixed settle time of a hop."""
    chosen: dict[str, dict[str, Any]] = {
        "input": {"name": stream},
        "decoder": {"bundle": str(bundle)},
        "beat": {"settle_ms": 20.0},
        "output": {"decode": ANY_PORT, "control": ANY_PORT, "lsl_name": f"{stream}-decodes"},
        "record": {"enabled": False},
    }
    for name, section in sections.items():
        chosen[name] = chosen.get(name, {}) | section
    path = folder / f"{unique('serve')}.toml"
    path.write_text(toml(chosen))
    return path


@pytest.fixture
def config(tmp_path: Path) -> ConfigWriter:
    """Writes a config, see `write_config`."""

    def write(stream: str, bundle: Path, **sections: dict[str, Any]) -> Path:
        return write_config(tmp_path, stream, bundle, **sections)

    return write


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `spikeloop ARGUMENTS`; everything started ends with the test."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(tmp_path, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def serve(tmp_path: Path, config: ConfigWriter) -> Iterator[DaemonStarter]:
    """Starts a daemon for a stream; every daemon started ends with the test."""
    started: list[Daemon] = []

    def start(stream: str, bundle: Path, *arguments: str, **sections: dict[str, Any]) -> Daemon:
        started.append(Daemon(tmp_path, config(stream, bundle, **sections), *arguments))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


@pytest.fixture
def source(stream: str) -> Iterator[Living]:
    """A living source of the test's stream."""
    living = Living(stream, UNIT_KEYS)
    yield living
    living.close()


@pytest.fixture
def daemon(serve: DaemonStarter, bundle: Path, stream: str, source: Living) -> Daemon:
    """A daemon that decodes."""
    started = serve(stream, bundle)
    started.until_validity("ok", source.send_due)
    return started


@pytest.fixture
def other(bundle: Path, tmp_path: Path) -> Path:
    """The same graph with other tables."""
    path = tmp_path / "other"
    derive_bundle(
        open_bundle(bundle),
        path,
        unit_keys=UNIT_KEYS,
        hop_s=HOP_S,
        bin_s=HOP_S,
        name="other",
        seed=3,
    )
    return path
