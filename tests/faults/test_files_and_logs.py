"""Disks that are full, streams that stand still, senders whose clock began anew."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.logs import LINES_WAITING, UnblockingHandler
from streams.errors import CurveKeysError
from streams.spikes.sequence import SequenceCheck
from streams.wire.curve_keys import read_curve_keys, write_curve_keys
from streams.wire.sockets import new_pair

WITHIN_S = 20.0


def test_nobody_waits_for_a_log_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    stream = open(writing, "w")  # noqa: SIM115 - closing it would wait, too
    handler, logger = UnblockingHandler(stream), logging.Logger("stands-still")
    logger.addHandler(handler)
    for i in range(3 * LINES_WAITING):
        logger.warning("x" * 200 + str(i))
    told = b""
    while b"lines were left out" not in told:
        told += os.read(reading, 65536)
    assert 0 < told.count(b"\n") < 3 * LINES_WAITING
    os.close(reading)
    handler.flush_within(WITHIN_S)
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_a_process_ends_though_its_log_stands_still() -> None:
    code = (
        "from service.logs import set_up, end_log; import logging, os; set_up('human')\n"
        "for i in range(5000): logging.getLogger('spikeloop').warning('x' * 200)\n"
        "end_log('last'); os._exit(3)"
    )
    reading, writing = os.pipe()
    done = subprocess.run([sys.executable, "-c", code], stderr=writing, timeout=WITHIN_S)
    assert done.returncode == 3
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("back_s", [4900.0, 1.0, -1.0])
def test_a_sender_that_restarts_with_another_clock_is_no_repetition(back_s: float) -> None:
    check, seq = SequenceCheck(), np.arange(1000, dtype=np.int64)
    t_s = 5000.0 + seq * 1e-3
    assert check.fresh(seq, t_s)[0].all()
    for begun in (0, 100, 200):
        block = slice(begun, begun + 100)
        fresh, n_lost = check.fresh(seq[block], t_s[block] - back_s)
        assert fresh.all()
        assert n_lost == 0
    assert not check.fresh(seq[:100], t_s[:100] - back_s)[0].any()


@pytest.mark.parametrize("field", ["public", "secret", "other"])
@pytest.mark.parametrize("value", ["short", "x" * 41, " " * 40, "é" * 40])
def test_keys_that_are_none_are_refused_with_a_sentence(
    tmp_path: Path, field: str, value: str
) -> None:
    write_curve_keys(tmp_path, new_pair(), new_pair())
    path = tmp_path / "server.json"
    text = path.read_text()
    held = getattr(read_curve_keys(path), field)
    path.write_text(text.replace(held, value))
    with pytest.raises(CurveKeysError, match=field):
        read_curve_keys(path)


def test_keys_that_are_a_folder_a_device_or_huge(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    huge = tmp_path / "huge"
    huge.touch(mode=0o600)
    os.truncate(huge, 2**40)
    for path in (tmp_path / "folder", huge):
        with pytest.raises(CurveKeysError, match="holds no keys"):
            read_curve_keys(path)


def _no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))


def test_keys_on_a_full_disk_leave_nothing_that_blocks_the_next_try(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    code = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from service.cli import main; sys.exit(main(['keys', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_no_room)
    assert done.returncode == 2
    assert "cannot write keys" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []
    write_curve_keys(folder, new_pair(), new_pair())
    assert sorted(path.name for path in folder.iterdir()) == ["client.json", "server.json"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


ANOTHER = ("--client", "ada")
SIGNING = ("--signing", "lab")
_COMMAND = (
    "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "from service.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("more", [ANOTHER, SIGNING])
def test_a_clients_or_signers_keys_on_a_full_disk_leave_nothing(
    tmp_path: Path, more: tuple[str, str]
) -> None:
    write_curve_keys(tmp_path, new_pair(), new_pair())
    before = sorted(path.name for path in tmp_path.iterdir())
    command = [sys.executable, "-c", _COMMAND, "keys", str(tmp_path), *more]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=_no_room)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("n_descriptors", [5, 8, 12])
@pytest.mark.parametrize(
    "command",
    [("status", "--control", "tcp://127.0.0.1:9"), ("watch", "--decode", "tcp://127.0.0.1:9")],
    ids=["status", "watch"],
)
def test_too_few_descriptors_are_a_sentence(n_descriptors: int, command: tuple[str, ...]) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n_descriptors, n_descriptors))

    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *command],
        capture_output=True, text=True, preexec_fn=few, timeout=WITHIN_S,
    )  # fmt: skip
    assert done.returncode == 6
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
