"""File descriptors are gone, a disk became read-only: said in a sentence, and decodes go on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.errors import ExitCode
from streams.errors import UnreachableError
from streams.wire.schema import Command, encode
from streams.wire.sockets import DecodeSubscriber, request
from tests.faults.seen import Seen
from tests.system import running
from tests.system.conftest import DaemonStarter, write_config
from tests.system.running import WITHIN_S, Daemon, keep_on, wait_until
from tests.system.sender_process import SenderProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit and mounts")


@pytest.mark.parametrize("n", [8, 16, 24, 32, 48])
def test_a_start_with_few_file_descriptors(
    tmp_path: Path, bundle: Path, stream: str, living: SenderProcess, n: int
) -> None:
    config = write_config(tmp_path, stream, bundle)
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({n}, {n})); {running._RUN}"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(config)], stderr=subprocess.PIPE, text=True
    )
    try:
        _, told = done.communicate(timeout=4.0)
    except subprocess.TimeoutExpired:  # so many are enough
        done.terminate()
        _, told = done.communicate(timeout=WITHIN_S)
    assert "Traceback" not in told, told
    assert done.returncode in (0, ExitCode.GUARD, ExitCode.STREAM, ExitCode.ADDRESS), told
    assert not done.returncode or "spikeloop: " in told, told


def n_open(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.announced['pid']}/fd"))


def is_answered(daemon: Daemon, within_s: float) -> bool:
    try:
        request(daemon.control, encode(Command(command="status")), within_s)
    except UnreachableError:
        return False
    return True


@pytest.mark.alone  # a sender that is held up makes it stale
def test_none_is_left_while_it_runs(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, seen: Seen
) -> None:
    daemon = serve(stream, bundle)
    run_id = daemon.until_validity("ok")["run_id"]
    pid, skipped = int(daemon.announced["pid"]), daemon.heard.decodes[-1]["beats_skipped"]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open(daemon), before[1]))
    seen.fault(daemon)
    with ExitStack() as stack:
        late_comers = [
            stack.enter_context(closing(DecodeSubscriber(daemon.endpoint, ("decode",))))
            for _ in range(10)
        ]
        assert not is_answered(daemon, 1.0)  # it has no socket for the connection
        n = len(daemon.heard.decodes)
        keep_on(1.5, daemon.listen)
        during = daemon.heard.decodes[n:]
        assert {d["validity"] for d in during} == {"ok"}, [d["reason"] for d in during]
        assert during[-1]["beats_skipped"] - skipped < len(during) / 10
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: is_answered(daemon, 1.0), daemon.listen)
        for one in late_comers:
            wait_until(lambda one=one: one.receive(0.0), daemon.listen)
    assert daemon.until_validity("ok")["run_id"] == run_id
    assert daemon.end() == 0


def _may_mount() -> bool:
    return (
        os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0
    )


needs_mounts = pytest.mark.skipif(
    sys.platform != "linux" or not _may_mount(), reason="needs to mount, and for that root"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, that a test can make read-only."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


@needs_mounts
def test_the_disk_becomes_read_only_while_it_runs(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    disk: Path,
    seen: Seen,
) -> None:
    daemon = serve(
        stream, bundle, log={"flights": str(disk / "flights")},
        decoder={"incoming": str(disk / "incoming")},
    )  # fmt: skip
    run_id = daemon.until_validity("ok")["run_id"]
    make_read_only(disk)
    seen.fault(daemon)
    daemon.stand_still()  # a beat is missed: a flight is to be written
    keep_on(0.3, lambda: None)
    seen.over(was_silent=True)
    daemon.go_on()
    flight = daemon.until_event("flight")
    assert "Read-only" in flight["detail"]["warning"]
    begin = Command(command="send_begin", arguments={"files": {"graph.onnx": 4}})
    reply = daemon.send(encode(begin))
    assert not reply.ok
    assert "Read-only" in reply.error
    assert daemon.until_validity("ok")["run_id"] == run_id
    assert "Traceback" not in daemon.err
    assert daemon.end() == 0


WRITERS = {
    "keys": ["keys", "{disk}/keys"],
    "announce": ["serve", "{config}", "--announce", "{disk}/announced.json"],
    "record": ["record", "{disk}/a.xdf", "--stream", "Spikes:{stream}", "--seconds", "1"],
    "session": ["simulate", "--write", "{disk}/a.nwb", "--minutes", "0.1", "--units", "4"],
    "replay of nothing": ["replay", "{disk}/none.nwb"],
    "swap from the registry": ["swap", "abcdef", "--registry", "{disk}/registry"],
}


@needs_mounts
@pytest.mark.parametrize("how", ["read-only", "full"])
@pytest.mark.parametrize("what", WRITERS)
def test_every_command_that_writes_says_so_in_a_sentence(
    tmp_path: Path,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    disk: Path,
    what: str,
    how: str,
) -> None:
    config = write_config(tmp_path, stream, bundle)
    if how == "full":
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(2**16))
            except OSError:
                pass
        for i in range(10**5):  # no room for a file's name either
            try:
                (disk / f"f{i}").write_bytes(b"x")
            except OSError:
                break
    else:
        make_read_only(disk)
    held = {"disk": disk, "config": config, "stream": stream}
    arguments = [argument.format(**held) for argument in WRITERS[what]]
    done = subprocess.run(
        [sys.executable, "-c", running._RUN, *arguments], capture_output=True, text=True,
        timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode not in (0, ExitCode.GUARD), done.stderr
    assert "spikeloop: " in done.stderr
    assert not list(disk.glob(".*"))
