"""A bit flips in the memory of a running daemon, from outside: noticed, told, and mended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.rot.process_memory import flip_in
from export.backends.opening import open_backend
from export.bundle import open_bundle
from export.memory_check import HoldsArrays
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from streams.exit_codes import ExitCode
from tests.export.tiny_graph import tiny_graph
from tests.faults.seen import Seen
from tests.recording.recorded import only_run, redecoded
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.running import Daemon, clock, keep_on
from tests.system.sender_process import SenderProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/PID/mem")
CPU, COMPILED = "onnxruntime-cpu", "numba-cpu"
SIGN_OR_EXPONENT = 30
"""A bit of a float32 that makes it another number altogether."""


def content_of(bundle: Path, backend: str, array: str) -> bytes:
    """What an array holds once the backend is open."""
    opened = open_backend(open_bundle(bundle), backend).backend
    assert isinstance(opened, HoldsArrays)
    return np.ascontiguousarray(opened.fixed_arrays()[array]).tobytes()


def flip(daemon: Daemon, content: bytes, i_bit: int) -> float:
    """Flip it in all copies; return when."""
    try:
        assert flip_in(int(daemon.announced["pid"]), content, i_bit)
    except PermissionError:
        pytest.skip("the memory of another process may not be written to here")
    return clock.now()


def noticed(daemon: Daemon, t_flip_s: float, within_s: float) -> dict[str, Any]:
    """The event, after which no decode is `ok` until the decoder was read anew."""
    event = daemon.until_event("memory_damaged")
    assert event["t_sent"] - t_flip_s < within_s
    reloaded = daemon.until_event("reloaded")
    daemon.until_validity("ok")
    decodes = daemon.heard.decodes
    # One that was being judged while the check ended was `ok` by right.
    between = [d for d in decodes if event["t_sent"] < d["t_sent"] < reloaded["t_sent"]][1:]
    assert {d["reason"] for d in between} <= {"memory_damaged"}
    damaged = [d for d in decodes if d["reason"] == "memory_damaged"]
    # A small decoder may be read anew from one beat to the next.
    assert damaged or reloaded["t_sent"] - event["t_sent"] < 2 * HOP_S
    for one in damaged:
        assert (one["validity"], one["value"]["velocity"]) == ("fault", [0.0, 0.0])
    seqs = [d["seq"] for d in damaged]
    assert seqs == [seqs[0] + i for i in range(len(seqs))]  # without a gap
    detail: dict[str, Any] = event["detail"]
    return detail


def within_s(daemon: Daemon) -> float:
    told = daemon.ask("status").result["memory_check"]
    assert told["bytes"] > 0
    return float(told["within_s"]) + 2 * HOP_S


@pytest.fixture
def derived(tmp_path: Path) -> Path:
    """The shipped decoder's graph for this test's units, which both backends run."""
    demo = open_bundle(bundle_path("shipped:demo"))
    derive_bundle(
        demo, tmp_path / "derived", unit_keys=UNIT_KEYS, hop_s=HOP_S, bin_s=HOP_S,
        name="derived", seed=3,
    )  # fmt: skip
    return tmp_path / "derived"


@pytest.mark.parametrize(
    ("backend", "array"),
    [(COMPILED, "weights"), (COMPILED, "table"), (CPU, "table"), (CPU, "session")],
)
def test_a_bit_of_a_weight_or_a_table(
    serve: DaemonStarter,
    derived: Path,
    stream: str,
    living: SenderProcess,
    backend: str,
    array: str,
    seen: Seen,
) -> None:
    if backend == COMPILED:
        pytest.importorskip("numba")
    content = content_of(derived, backend, array)
    daemon = serve(stream, derived, decoder={"backend": backend})
    daemon.until_validity("ok")
    bound_s = within_s(daemon)
    # The least bit of a number: no rule on values would ever see it.
    t_flip_s = flip(daemon, content, 8 * (len(content) // 2) // 32 * 32)
    seen.fault(daemon, t_s=t_flip_s)
    detail = noticed(daemon, t_flip_s, bound_s)
    assert (detail["what"], detail["in_service"]) == (array, True)
    daemon.until(lambda _: "damaged" in daemon.err)
    # It can happen again, and the decoder that was read anew is looked after as well.
    n = len(daemon.heard.events)
    flip(daemon, content, 32 * 5 + SIGN_OR_EXPONENT)
    daemon.until(lambda heard: any(e["event"] == "reloaded" for e in heard.events[n:]))
    daemon.until_validity("ok")


def test_a_bit_of_a_weight_that_onnxruntime_keeps_for_itself(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess
) -> None:
    weights = np.random.default_rng(0).normal(0, 0.5, (8, 16)).astype(np.float32)
    assert weights.tobytes() in tiny_graph(["velocity", "position"])  # `w_in`
    daemon = serve(stream, bundle, decoder={"backend": CPU})
    daemon.until_validity("ok")
    bound_s = within_s(daemon)
    t_flip_s = flip(daemon, weights.tobytes(), SIGN_OR_EXPONENT)
    detail = noticed(daemon, t_flip_s, bound_s)
    assert detail["what"] == "the graph's weights"


def test_a_decoder_that_cannot_be_read_anew_stays_a_fault(
    serve: DaemonStarter, derived: Path, stream: str, living: SenderProcess
) -> None:
    content = content_of(derived, CPU, "table")
    daemon = serve(stream, derived, decoder={"backend": CPU})
    daemon.until_validity("ok")
    (derived / "tables.safetensors").write_bytes(b"gone, too")
    flip(daemon, content, 0)
    failed = daemon.until_event("backend_failed")
    assert "not reloaded" in failed["detail"]["warning"]
    n = len(daemon.heard.decodes)
    keep_on(1.0, daemon.listen)
    assert {d["reason"] for d in daemon.heard.decodes[n + 1 :]} == {"memory_damaged"}


def test_the_record_tells_which_decodes_a_damaged_table_made(
    serve: DaemonStarter, derived: Path, stream: str, living: SenderProcess, tmp_path: Path
) -> None:
    content, folder = content_of(derived, CPU, "table"), tmp_path / "recordings"
    record = {"enabled": True, "folder": str(folder)}
    daemon = serve(stream, derived, decoder={"backend": CPU}, record=record)
    daemon.until_validity("ok")
    bound_s = within_s(daemon)
    t_flip_s = flip(daemon, content, SIGN_OR_EXPONENT)
    noticed(daemon, t_flip_s, bound_s)
    keep_on(0.5, daemon.listen)
    assert daemon.end() == 0
    last = max(d["seq"] for d in daemon.heard.decodes if d["reason"] == "memory_damaged")
    damaged = [d for d in daemon.heard.decodes if d["t_sent"] > t_flip_s and d["seq"] <= last]
    report = redecoded(only_run(folder), code=int(ExitCode.BELOW_THRESHOLD))
    # What was said before, and after the decoder was read anew, is made again bit for bit.
    assert 0 < report["differing"] <= len(damaged)
    assert report["first_differing"][0]["seq"] >= damaged[0]["seq"] - 1
    assert report["compared"] == report["decodes"] > 2 * len(damaged)
