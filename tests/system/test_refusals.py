"""What `serve` refuses to start with: the exit code, and a text that says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.lsl.outlets import CountsOutlet, MarkerOutlet, Outlet, SpikeOutlet, ValuesOutlet
from streams.wire.sockets import Publisher
from tests.system.conftest import UNIT_KEYS, ConfigWriter, DaemonStarter
from tests.system.running import ANY_PORT, Process, unique
from tests.system.sources import Living

Run = Callable[..., Process]


def test_no_matching_stream(run: Run, config: ConfigWriter, bundle: Path, stream: str) -> None:
    other = unique("other")
    outlet = SpikeOutlet(other, other, UNIT_KEYS)
    process = run("serve", str(config(stream, bundle, input={"wait_s": 0.5})))
    assert process.code() == 3
    assert f"name='{stream}'" in process.err
    assert f"visible: {other!r}" in process.err or f", {other!r}" in process.err
    outlet.close()


def test_several_matching_streams(
    run: Run, config: ConfigWriter, bundle: Path, stream: str
) -> None:
    outlets = [SpikeOutlet(stream, f"{stream}-{which}", UNIT_KEYS) for which in "ab"]
    process = run("serve", str(config(stream, bundle)))
    assert process.code() == 3
    assert f"source_id '{stream}-a'" in process.err
    assert f"source_id '{stream}-b'" in process.err
    assert "Name one by `source_id`." in process.err
    for outlet in outlets:
        outlet.close()


def test_one_of_several_is_named_by_its_source_id(serve: DaemonStarter, bundle: Path) -> None:
    stream = unique("rat's spikes")
    source = Living(stream, UNIT_KEYS, source_id=f"{stream}-a")
    other = Living(stream, UNIT_KEYS, source_id=f"{stream}-b")
    daemon = serve(stream, bundle, input={"source_id": f"{stream}-a"})
    source.wait_for_listener(daemon.listen)
    daemon.until_validity("ok", source.send_due)
    assert f"{stream}-a" in daemon.ask("status").result["source"]
    assert daemon.end() == 0
    source.close()
    other.close()


def _strings(name: str) -> Outlet:
    return MarkerOutlet(name, name)


def _five_floats(name: str) -> Outlet:
    return ValuesOutlet(name, "Spikes", name, ["a", "b", "c", "d", "e"])


def _cursor(name: str) -> Outlet:
    return ValuesOutlet(name, "Spikes", name, ["x", "y"])


def _unlabelled_counts(name: str) -> Outlet:
    return CountsOutlet(name, name, ["", "", ""], 20.0)


def _counts_labelled_alike(name: str) -> Outlet:
    return CountsOutlet(name, name, ["a", "b", "a"], 20.0)


@pytest.mark.parametrize(
    ("make", "stream_type", "told"),
    [
        (_strings, "Markers", "format string"),
        (_five_floats, "Spikes", 'columns = ["channel", "unit", "other", "other", "other"]'),
        (_cursor, "Spikes", "its channels are x, y"),
        (_unlabelled_counts, "Spikes", "distinct label on every channel"),
        (_counts_labelled_alike, "Spikes", "distinct label on every channel"),
    ],
)
def test_stream_of_the_wrong_layout(
    run: Run,
    config: ConfigWriter,
    bundle: Path,
    stream: str,
    make: Callable[[str], Outlet],
    stream_type: str,
    told: str,
) -> None:
    outlet = make(stream)
    process = run("serve", str(config(stream, bundle, input={"type": stream_type})))
    assert process.code() == 3
    assert told in process.err
    assert "channel and unit, perhaps seq" in process.err
    outlet.close()


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"beat": {"settle": 5}}, ("'beat.settle'", "'settle_ms'")),
        ({"inputs": {"type": "Spikes"}}, ("'inputs'", "'input'")),
        ({"input": {"budget_spikes_per_s": "many"}}, ("input.budget_spikes_per_s", "'many'")),
        ({"output": {"lsl_outlet": 1}}, ("output.lsl_outlet", "got 1")),
        ({"shaping": {"smoothing": 1.5}}, ("shaping.smoothing", "less than 1")),
        ({"beat": {"settle_ms": 600.0}}, ("beat.settle_ms is 600", "settle_most_ms, 500 ms")),
        ({"beat": {"hop_ms": 30.0}}, ("beat.hop_ms is 30", "hop of 20 ms")),
        ({"decoder": {"lead_s": 0.5}}, ("lead_s is 0.5", "0 to 0.1 s")),
    ],
)
def test_config_that_cannot_be(
    run: Run,
    config: ConfigWriter,
    bundle: Path,
    stream: str,
    sections: dict[str, dict[str, Any]],
    told: tuple[str, ...],
) -> None:
    process = run("serve", str(config(stream, bundle, **sections)))
    assert process.code() == 2
    for part in told:
        assert part in process.err
    assert "Traceback" not in process.err


def test_config_that_is_no_toml(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[input\n")
    process = run("serve", str(path))
    assert process.code() == 2
    assert "broken.toml is not TOML" in process.err


def test_no_config(run: Run, tmp_path: Path) -> None:
    process = run("serve", str(tmp_path / "none.toml"))
    assert process.code() == 2
    assert "configs/serve.toml" in process.err


def test_file_that_cannot_be_written(
    run: Run, config: ConfigWriter, bundle: Path, stream: str, tmp_path: Path
) -> None:
    source = Living(stream, UNIT_KEYS)
    file = str(tmp_path / "none" / "file")
    process = run("serve", str(config(stream, bundle)), "--announce", file)
    assert process.code() == 2
    assert "does its folder exist?" in process.err
    source.close()


def _missing(path: Path) -> str:
    shutil.rmtree(path)
    return str(path)


def _truncated(path: Path) -> str:
    file = path / "graph.onnx"
    file.write_bytes(file.read_bytes()[:-100])
    return "graph.onnx"


def _bit_flipped(path: Path) -> str:
    file = path / "tables.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return "tables.safetensors"


def _without_a_manifest(path: Path) -> str:
    (path / "manifest.json").unlink()
    return "manifest.json"


@pytest.mark.parametrize("damage", [_missing, _truncated, _bit_flipped, _without_a_manifest])
def test_damaged_bundle(
    run: Run,
    config: ConfigWriter,
    bundle: Path,
    stream: str,
    tmp_path: Path,
    damage: Callable[[Path], str],
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    told = damage(damaged)
    process = run("serve", str(config(stream, damaged)))
    assert process.code() == 4
    assert told in process.err
    assert "Traceback" not in process.err


def test_unknown_backend(run: Run, config: ConfigWriter, bundle: Path, stream: str) -> None:
    process = run("serve", str(config(stream, bundle, decoder={"backend": "onnxruntime-cpp"})))
    assert process.code() == 5
    assert "did you mean onnxruntime-cpu" in process.err


@pytest.mark.parametrize("socket", ["decode", "control"])
def test_port_in_use(
    run: Run, config: ConfigWriter, bundle: Path, stream: str, socket: str
) -> None:
    taken = Publisher(ANY_PORT)
    process = run("serve", str(config(stream, bundle, output={socket: taken.endpoint})))
    assert process.code() == 6
    assert taken.endpoint in process.err
    taken.close()


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:5570", "tcp://*:5570", "tcp://[::]:5570"])
def test_only_loopback_is_bound(
    run: Run, config: ConfigWriter, bundle: Path, stream: str, endpoint: str
) -> None:
    process = run("serve", str(config(stream, bundle, output={"decode": endpoint})))
    assert process.code() == 6
    assert "127.0.0.1" in process.err


@pytest.mark.parametrize("socket", ["decode", "control"])
@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("tcp://127.0.0.1", "names no port"),
        ("tcp://127.0.0.1:99999", "no port 99999"),
        ("ipc:///run/spikes", "ipc:// is not spoken"),
        ("127.0.0.1:5570", "does not begin with tcp://"),
        ("tcp://::1:5570", "in brackets"),
    ],
)
def test_what_is_no_address(
    run: Run,
    config: ConfigWriter,
    bundle: Path,
    stream: str,
    socket: str,
    endpoint: str,
    why: str,
) -> None:
    process = run("serve", str(config(stream, bundle, output={socket: endpoint})))
    assert process.code() == 6
    assert why in process.err
    assert "another spikeloop" not in process.err


@pytest.mark.parametrize("command", [("status", "--control"), ("watch", "--decode")])
def test_clients_refuse_what_is_no_address(run: Run, command: tuple[str, ...]) -> None:
    process = run(*command, "tcp://127.0.0.1")
    assert process.code() == 7
    assert "names no port" in process.err


def test_no_daemon_to_talk_to(run: Run) -> None:
    free = Publisher(ANY_PORT)
    endpoint = free.endpoint
    free.close()
    process = run("status", "--control", endpoint)
    assert process.code() == 7
    assert "spikeloop serve" in process.err
