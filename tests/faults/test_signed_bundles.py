"""A daemon that demands signatures: at its start, in a swap, in a transfer, from the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from calibration.registry import STORE, Registry
from export.bundle import SIGNATURE
from export.signing.signer import signer_of
from tests.export.test_signing import flip, recompute
from tests.system.conftest import UNIT_KEYS, write_config
from tests.system.running import Daemon, Process, unique
from tests.system.sender_process import SenderProcess

Run = Callable[..., Process]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A secret key, made by the command."""
    folder = tmp_path_factory.mktemp("keys")
    assert Process(folder, "keys", str(folder), "--signing", "lab").code() == 0
    return folder / "lab.signing.json"


def demanding(key: Path, bundle: Path, folder: Path) -> dict[str, Any]:
    public = str(key.with_name("lab.pub"))
    incoming = str(folder / "incoming")
    return {"bundle": str(bundle), "incoming": incoming, "require_signature": [public]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, bundle: Path, key: Path) -> Iterator[Daemon]:
    folder, name = tmp_path_factory.mktemp("signed"), unique("spikes")
    sender = SenderProcess(name, UNIT_KEYS)
    signer_of(key)(bundle)
    started = Daemon(
        folder, write_config(folder, name, bundle, decoder=demanding(key, bundle, folder))
    )
    started.until_validity("ok")
    yield started
    started.kill()
    sender.close()
    (bundle / SIGNATURE).unlink()


def refused(run: Run, daemon: Daemon, *arguments: str) -> str:
    process = run("swap", *arguments, "--control", daemon.control)
    assert process.code() == 4
    assert "Traceback" not in process.err
    return process.err


@pytest.mark.parametrize("way", [(), ("--send",)])
def test_a_swap_to_what_is_not_signed_is_refused(
    daemon: Daemon, other: Path, key: Path, run: Run, way: tuple[str, ...]
) -> None:
    assert "is not signed" in refused(run, daemon, str(other), *way)
    signed = run("sign", str(other), "--key", str(key))
    assert signed.code() == 0, signed.err
    flip(other / "weights.safetensors")
    assert "checksum differs" in refused(run, daemon, str(other), *way)
    recompute(other)
    assert "not the manifest that was signed" in refused(run, daemon, str(other), *way)
    daemon.until_validity("ok")


@pytest.mark.parametrize("way", [(), ("--send",)])
def test_a_swap_to_what_is_signed_goes_on(
    daemon: Daemon, other: Path, key: Path, run: Run, way: tuple[str, ...]
) -> None:
    signer_of(key)(other)
    swapped = run("swap", str(other), *way, "--control", daemon.control)
    assert swapped.code() == 0, swapped.err
    daemon.until_validity("ok")


def test_the_registry_keeps_signatures_and_the_daemon_asks_for_them(
    daemon: Daemon, other: Path, key: Path, run: Run, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "bundles")
    id_ = registry.add(other, "unsigned")
    given = (id_, "--registry", str(tmp_path / "bundles"))
    assert "is not signed" in refused(run, daemon, *given)
    assert registry.current() is None
    signer_of(key)(other)
    assert registry.add(other, "signed since") == id_
    assert (registry.root / STORE / id_ / SIGNATURE).exists()
    swapped = run("swap", *given, "--control", daemon.control)
    assert swapped.code() == 0, swapped.err
    assert registry.current() == id_


def test_it_does_not_start_with_what_is_not_signed(
    other: Path, key: Path, run: Run, tmp_path: Path, stream: str
) -> None:
    config = write_config(tmp_path, stream, other, decoder=demanding(key, other, tmp_path))
    for command in ("serve", "doctor"):
        process = run(command, str(config))
        assert process.code() != 0
        assert "is not signed" in process.err + process.out
    assert run("serve", str(config)).code() == 4


def test_a_signer_that_is_not_there_is_a_sentence(
    other: Path, run: Run, tmp_path: Path, stream: str
) -> None:
    config = write_config(
        tmp_path, stream, other, decoder={"require_signature": ["nobody.pub"], "bundle": str(other)}
    )
    process = run("serve", str(config))
    assert process.code() == 2
    assert "no key at nobody.pub" in process.err
