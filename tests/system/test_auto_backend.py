"""`serve` without a backend named: it says which one it chose and why, and remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export.bundle import open_bundle
from export.random_bundles.derived import derive_bundle
from streams.wire.schema import Command, encode
from tests.system import running
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.flaky_backend import NAME, SWITCH
from tests.system.running import Daemon, wait_until
from tests.system.sources import Living

CPU, COMPILED = "onnxruntime-cpu", "numba-cpu"
DEMO = Path(__file__).parents[2] / "configs" / "bundles" / "demo"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The daemons' cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def derived(folder: Path, name: str, seed: int) -> Path:
    """The shipped decoder's graph for this test's units."""
    derive_bundle(
        open_bundle(DEMO), folder / name, unit_keys=UNIT_KEYS, hop_s=HOP_S, bin_s=HOP_S,
        name=name, seed=seed,
    )  # fmt: skip
    return folder / name


def told(daemon: Daemon, source: Living) -> dict[str, Any]:
    """What it says of its choice: the same in `status`, `started`, and the log."""
    daemon.until_validity("ok", source.send_due)
    started = daemon.until_event("started")["detail"]
    status = daemon.ask("status").result
    choice: dict[str, Any] = status["backend_choice"]
    assert choice == started["backend_choice"]
    assert status["backend"] == started["backend"] == next(iter(choice["step_ms"]))
    chosen = daemon.until_event("backend_chosen")["detail"]
    assert chosen == {"backend": status["backend"]} | choice
    wait_until(lambda: f"backend_chosen backend={status['backend']}" in daemon.err)
    return status


def test_it_says_what_it_chose_and_remembers(
    serve: DaemonStarter, stream: str, source: Living, tmp_path: Path
) -> None:
    pytest.importorskip("numba")
    bundle = derived(tmp_path, "first", seed=0)
    first = serve(stream, bundle)
    status = told(first, source)
    choice = status["backend_choice"]
    assert set(choice["step_ms"]) == {CPU, COMPILED}
    assert status["backend"] == min(choice["step_ms"], key=choice["step_ms"].__getitem__)
    assert {status["backend"], status["spare_backend"]} == {CPU, COMPILED}
    assert (choice["asked"], choice["remembered"], choice["note"]) == ("auto", False, "")
    assert "timing_backends" in first.err
    assert first.end() == 0
    again = serve(stream, bundle)
    assert told(again, source)["backend_choice"] == choice | {"remembered": True}
    assert "timing_backends" not in again.err


def test_a_swap_goes_through_the_same_choice(
    serve: DaemonStarter, stream: str, source: Living, tmp_path: Path
) -> None:
    pytest.importorskip("numba")
    daemon = serve(stream, derived(tmp_path, "first", seed=0))
    before = told(daemon, source)
    other = derived(tmp_path, "other", seed=3)
    swap = Command(command="swap", arguments={"bundle": str(other)})
    assert daemon.send(encode(swap)).ok
    daemon.until_event("promote", source.send_due)
    status = daemon.ask("status").result
    assert status["decoder_id"] == "other"
    assert status["backend_choice"] == before["backend_choice"] | {"remembered": True}
    assert status["spare_backend"] == before["spare_backend"]
    events = [one["detail"] for one in daemon.heard.events if one["event"] == "backend_chosen"]
    assert [one["remembered"] for one in events] == [False, True]


def test_a_backend_that_is_named_is_not_chosen(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living, cache: Path
) -> None:
    daemon = serve(stream, bundle, decoder={"backend": CPU})
    daemon.until_validity("ok", source.send_due)
    assert daemon.ask("status").result["backend_choice"] == {}
    assert daemon.until_event("started")["detail"]["backend_choice"] == {}
    assert not list(cache.rglob("*.json"))


def test_the_next_fastest_takes_over_from_one_that_fails(
    serve: DaemonStarter,
    stream: str,
    bundle: Path,
    source: Living,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch = tmp_path / "break"
    monkeypatch.setenv(SWITCH, str(switch))
    monkeypatch.setattr(running, "_RUN", f"import tests.system.flaky_backend; {running._RUN}")
    first = serve(stream, bundle)
    told(first, source)
    assert first.end() == 0
    (path,) = cache.rglob("choices/*.json")
    held = json.loads(path.read_text())
    assert set(held["step_ms"]) == {NAME, CPU}
    held["step_ms"] = {NAME: 1e-3, CPU: 2e-3}
    path.write_text(json.dumps(held))
    daemon = serve(stream, bundle)
    status = told(daemon, source)
    assert (status["backend"], status["spare_backend"]) == (NAME, CPU)
    switch.touch()
    daemon.until_event("fell_back", source.send_due)
    assert daemon.until_validity("ok", source.send_due)["backend"] == CPU
    assert NAME in daemon.ask("status").result["refused_backends"]
