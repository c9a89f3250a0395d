"""Decoders change while spikes come in: no beat is missed, and what is unfit is refused."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from calibration.registry import Registry
from streams.wire.schema import Command, encode
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, UNIT_KEYS
from tests.system.running import Daemon, Process, wait_until
from tests.system.sources import Living

N_SWAPS = int(os.environ.get("SPIKELOOP_SWAPS", "12"))

LEAST_OK = 0.95
"""The source runs in the test's process: a busy machine holds it up, which is no hole."""


def swap(daemon: Daemon, bundle: Path, each: Callable[[], object], **arguments: object) -> dict:
    """Swap, and keep the source alive until it is over."""
    command = Command(command="swap", arguments={"bundle": str(bundle), **arguments})
    assert daemon.send(encode(command)).ok
    result: dict = {}

    def over() -> bool:
        result.update(daemon.ask("deployment").result)
        return bool(result["over"])

    def listen() -> None:
        each()
        daemon.listen()

    wait_until(over, listen)
    return result


def stages(result: dict) -> list[str]:
    return [stage["stage"] for stage in result["stages"]]


def assert_no_hole(daemon: Daemon, i_first: int) -> None:
    """Every beat was decoded, every message arrived, and nearly all could be trusted."""
    decodes = daemon.heard.decodes[i_first:]
    for field in ("seq", "beat"):
        numbers = [decode[field] for decode in decodes]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    validity = [decode["validity"] for decode in decodes]
    assert set(validity) <= {"ok", "stale"}
    assert validity.count("ok") >= min(LEAST_OK * len(validity), len(validity) - 2)


@pytest.mark.alone
def test_swaps_under_load_lose_nothing(
    daemon: Daemon, source: Living, bundle: Path, other: Path
) -> None:
    i_first = len(daemon.heard.decodes)
    for i in range(N_SWAPS):
        result = swap(daemon, (other, bundle)[i % 2], source.send_due)
        assert stages(result) == ["received", "loaded", "parity", "shadow", "active"]
    daemon.until_validity("ok", source.send_due)
    names = [decode["decoder_id"] for decode in daemon.heard.decodes[i_first:]]
    changes = sum(before != after for before, after in itertools.pairwise(names))
    assert changes == N_SWAPS
    i_without = len(daemon.heard.decodes)

    def listen() -> None:
        source.send_due()
        daemon.listen()

    wait_until(lambda: len(daemon.heard.decodes) >= 2 * i_without - i_first, listen)
    assert_no_hole(daemon, i_first)
    late = [decode["late"] for decode in daemon.heard.decodes]
    n_with, n_without = sum(late[i_first:i_without]), sum(late[i_without:])
    assert n_with <= 1.2 * n_without + 2, f"{n_with} late beats with swaps, {n_without} without"


@pytest.mark.alone
def test_a_refused_bundle_leaves_the_old_one_decoding(
    daemon: Daemon, source: Living, other: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(other, damaged)
    held = bytearray((damaged / "tables.safetensors").read_bytes())
    held[-1] ^= 1
    (damaged / "tables.safetensors").write_bytes(held)
    daemon.until_validity("ok", source.send_due)  # the source stood still meanwhile
    i_first = len(daemon.heard.decodes)
    result = swap(daemon, damaged, source.send_due)
    assert "active" not in stages(result)
    assert "tables.safetensors" in result["refused"]
    assert daemon.until_event("refused", source.send_due)
    assert {decode["decoder_id"] for decode in daemon.heard.decodes[i_first:]} == {"tiny"}
    assert_no_hole(daemon, i_first)


def test_a_bundle_of_another_hop_is_refused(daemon: Daemon, source: Living, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "slow", UNIT_KEYS, 0.05, 0.05, with_position=True)
    result = swap(daemon, tmp_path / "slow", source.send_due)
    assert "hop" in result["refused"]


def test_a_bundle_for_other_units_is_refused(
    daemon: Daemon, source: Living, tmp_path: Path
) -> None:
    strangers = [f"u{unit}" for unit in range(100, 108)]
    write_tiny_bundle(tmp_path / "strange", strangers, HOP_S, HOP_S, with_position=True)
    result = swap(daemon, tmp_path / "strange", source.send_due)
    assert "units that it does not know" in result["refused"]


def test_two_swaps_at_once(daemon: Daemon, source: Living, bundle: Path, other: Path) -> None:
    arguments = {"bundle": str(other), "shadow_s": 1.0}
    assert daemon.send(encode(Command(command="swap", arguments=arguments))).ok
    second = daemon.send(encode(Command(command="swap", arguments={"bundle": str(bundle)})))
    assert not second.ok
    assert "being deployed" in second.error

    def listen() -> None:
        source.send_due()
        daemon.listen()

    wait_until(lambda: daemon.ask("deployment").result["over"], listen)
    assert daemon.ask("status").result["decoder_id"] == "other"


def test_shadow_decodes_beside_the_active_one_until_promoted(
    daemon: Daemon, source: Living, other: Path, run: Callable[..., Process]
) -> None:
    swap(daemon, other, source.send_due, hold=True)
    daemon.until(lambda heard: len(heard.shadows) >= 20, source.send_due)
    shadows = daemon.heard.shadows
    assert [one["seq"] for one in shadows] == list(range(1, len(shadows) + 1))
    assert {one["decoder_id"] for one in shadows} == {"other"}
    assert shadows[-1]["validity"] == "ok"
    assert daemon.heard.decodes[-1]["decoder_id"] == "tiny"
    assert daemon.ask("promote").ok
    assert daemon.until_validity("ok", source.send_due)
    assert daemon.heard.decodes[-1]["decoder_id"] == "other"
    assert daemon.ask("rollback").ok
    daemon.until_validity("ok", source.send_due)
    assert daemon.heard.decodes[-1]["decoder_id"] == "tiny"


def test_rollback_without_a_swap_is_an_error(daemon: Daemon) -> None:
    reply = daemon.ask("rollback")
    assert not reply.ok
    assert "nothing was swapped" in reply.error


def test_the_registry_follows_what_the_daemon_runs(
    daemon: Daemon,
    source: Living,
    bundle: Path,
    other: Path,
    run: Callable[..., Process],
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path / "registry")
    first, second = (registry.add(path, "new") for path in (bundle, other))
    registry.promote(first, "this morning's")
    options = ("--registry", str(registry.root), "--control", daemon.control)
    for arguments, current in (
        (("swap", second), second),
        (("rollback",), first),
        (("swap", second, "--hold"), first),
        (("promote",), second),
    ):
        told = run(*arguments, *options)
        wait_until(lambda told=told: not told.is_alive, source.send_due)
        assert told.code() == 0, told.err
        assert registry.current() == current
    assert daemon.ask("status").result["checksum"] == second
    assert [event.what for event in registry.history()][-3:] == ["promote", "rollback", "promote"]
