"""A backend fails in service: `fault` at once, then the listed fallback, and it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.wire.schema import Command, encode
from tests.export.tiny_graph import write_tiny_bundle
from tests.system import running
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.flaky_backend import NAME, SWITCH
from tests.system.running import Daemon, wait_until
from tests.system.sources import Living

CPU = "onnxruntime-cpu"
TAKES_OVER_WITHIN_S = 1.0


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """While this file exists, the backend `flaky` of the daemons of this test fails."""
    path = tmp_path / "break"
    monkeypatch.setenv(SWITCH, str(path))
    monkeypatch.setattr(running, "_RUN", f"import tests.system.flaky_backend; {running._RUN}")
    yield path
    path.unlink(missing_ok=True)


def started(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living, fallback: list[str]
) -> Daemon:
    decoder = {"bundle": str(bundle), "backend": NAME, "fallback": fallback}
    daemon = serve(stream, bundle, decoder=decoder)
    daemon.until_validity("ok", source.send_due)
    return daemon


def first(found: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return next(one for one in found if all(one[k] == v for k, v in fields.items()))


@pytest.mark.alone
def test_the_fallback_takes_over_within_a_second(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living, switch: Path
) -> None:
    daemon = started(serve, stream, bundle, source, ["torch", CPU])
    assert daemon.ask("status").result["spare_backend"] == CPU
    i_before = len(daemon.heard.decodes)
    switch.touch()
    daemon.until_event("fell_back", source.send_due)
    told = daemon.until_event("backend_failed")["detail"]
    assert (told["backend"], told["fallback"]) == (NAME, CPU)
    assert "out of data bounds" in told["warning"]
    daemon.until_validity("ok", source.send_due)
    decodes = daemon.heard.decodes[i_before:]
    fault = first(decodes, validity="fault", reason="backend_error")
    assert fault["backend"] == NAME
    assert fault["value"]["velocity"] == [0.0, 0.0]
    assert fault["value_raw"] == {"velocity": None, "position": None}
    again = next(d for d in decodes if d["validity"] == "ok" and d["beat"] > fault["beat"])
    assert again["backend"] == CPU
    assert again["t_window"] - fault["t_window"] <= TAKES_OVER_WITHIN_S
    status = daemon.ask("status").result
    assert status["backend"] == CPU
    assert status["spare_backend"] == ""
    assert "out of data bounds" in status["refused_backends"][NAME]
    assert "torch" in status["refused_backends"]


def test_between_the_two_no_beat_is_ok_and_none_is_lost(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living, switch: Path
) -> None:
    daemon = started(serve, stream, bundle, source, [CPU])
    i_before = len(daemon.heard.decodes)
    switch.touch()
    daemon.until_event("fell_back", source.send_due)
    daemon.until_validity("ok", source.send_due)
    decodes = daemon.heard.decodes[i_before:]
    seqs = [decode["seq"] for decode in decodes]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    course = [(decode["backend"], decode["validity"]) for decode in decodes]
    in_order = [(NAME, "ok"), (NAME, "fault"), (CPU, "ok")]
    assert sorted(set(course), key=course.index) == in_order[in_order.index(course[0]) :]
    assert (NAME, "fault") in course


def test_without_a_fallback_it_stays_a_fault_until_the_backend_runs_again(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living, switch: Path
) -> None:
    daemon = started(serve, stream, bundle, source, [])
    switch.touch()
    told = daemon.until_event("backend_failed", source.send_due)["detail"]
    assert (told["backend"], told["fallback"]) == (NAME, "")
    assert daemon.until_validity("fault", source.send_due)["reason"] == "backend_error"
    switch.unlink()
    assert daemon.until_validity("ok", source.send_due)["backend"] == NAME
    assert [e["event"] for e in daemon.heard.events].count("backend_failed") == 1


def test_a_swapped_decoder_has_its_own_fallback(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living, switch: Path, tmp_path: Path
) -> None:
    daemon = started(serve, stream, bundle, source, [CPU])
    again = write_tiny_bundle(
        tmp_path / "again", UNIT_KEYS, HOP_S, HOP_S, with_position=True, name="again"
    )
    swap = Command(command="swap", arguments={"bundle": str(again.path)})
    assert daemon.send(encode(swap)).ok
    daemon.until_event("promote", source.send_due)
    switch.touch()
    daemon.until_event("fell_back", source.send_due)
    decode = daemon.until_validity("ok", source.send_due)
    assert (decode["decoder_id"], decode["backend"]) == ("again", CPU)


def test_tensorrt_without_a_gpu_ends_serve_with_5_and_what_to_do(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living
) -> None:
    daemon = serve(stream, bundle, decoder={"bundle": str(bundle), "backend": "tensorrt"})
    assert daemon.code() == 5
    assert "no NVIDIA GPU" in daemon.err
    assert "onnxruntime-cpu" in daemon.err


def test_a_listed_fallback_is_taken_at_the_start_and_told(
    serve: DaemonStarter, stream: str, bundle: Path, source: Living
) -> None:
    decoder = {"bundle": str(bundle), "backend": "tensorrt:fp16", "fallback": [CPU]}
    daemon = serve(stream, bundle, decoder=decoder)
    told = daemon.until_event("started", source.send_due)["detail"]
    assert told["backend"] == CPU
    assert "no NVIDIA GPU" in told["refused_backends"]["tensorrt:fp16"]
    wait_until(lambda: daemon.ask("status").result["backend"] == CPU, source.send_due)
