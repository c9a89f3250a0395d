"""Commands of a user who has no home, no name, or a home that cannot be written: containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.system.running import ANY_PORT, toml, unique

WITHIN_S = 120.0
STRANGER = ("unshare", "--user", "--map-user=23456")
"""Runs a command as a user whom `/etc/passwd` does not know, without root's rights."""
_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"
_NAMELESS = "import pwd\ndef nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody\n"


@cache
def has_strangers() -> bool:
    try:
        return subprocess.run([*STRANGER, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(params=["absent", "read-only", "closed"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """HOME, which is no folder, or one that nothing can be written to, or not even be read."""
    folder = tmp_path / "home"
    if request.param == "absent":
        yield "/dev/null/home"
    elif not has_strangers():
        pytest.skip("needs user namespaces: root may write everywhere")
    else:
        folder.mkdir()
        folder.chmod(0o555 if request.param == "read-only" else 0o000)
        yield str(folder)
        folder.chmod(0o700)


def ran(home: str | None, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of `spikeloop ARGUMENTS`, with a bare environment."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    (folder / "temporary").mkdir(exist_ok=True)
    environment = kept | {"TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            *(STRANGER if has_strangers() else ()),
            sys.executable,
            "-c",
            _NAMELESS + _RUN,
            *arguments,
        ],
        env=environment if home is None else environment | {"HOME": home},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_home_that_cannot_be_written(home: str, tmp_path: Path) -> None:
    code, _, told = ran(home, tmp_path, "simulate", "--write", "session.nwb", "--minutes", "0.1")
    assert (code, "Traceback" in told) == (0, False), told
    assert (tmp_path / "session.nwb").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("doctor",), 0),
        (("keys", "keys"), 0),
        (("status", "--control", "tcp://127.0.0.1:1"), 7),
        (("simulate", "--write", "session.nwb", "--minutes", "0.1"), 0),
        (("record", "none.xdf", "--stream", "Spikes:no-such", "--wait", "0.2"), 3),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_no_home_at_all(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    found, _, told = ran(None, tmp_path, *arguments)
    assert (found, "Traceback" in told) == (code, False), told


def test_the_numba_backend_compiles(tmp_path: Path, bundle: Path) -> None:
    arguments = ("bench", "decode", "--bundle", str(bundle), "--backend", "numba-cpu", "--json")
    code, out, told = ran(None, tmp_path, *arguments)
    assert (code, "Traceback" in told) == (0, False), told
    assert "numba-cpu" in out


def test_the_daemon_decodes(tmp_path: Path) -> None:
    code, out, told = ran(None, tmp_path, "demo", "--seconds", "1", "--json")
    assert "Traceback" not in told
    assert code in (0, 8), told  # 8: too short to reach targets in
    assert json.loads(out)["fates"]["used"] > 0


def test_serve_tells_what_it_lacks(tmp_path: Path, bundle: Path) -> None:
    name = unique("no-such")
    config = {
        "input": {"name": name, "wait_s": 0.2},
        "decoder": {"bundle": str(bundle)},
        "output": {"decode": ANY_PORT, "control": ANY_PORT},
    }
    (tmp_path / "serve.toml").write_text(toml(config))
    code, _, told = ran(None, tmp_path, "serve", "serve.toml")
    assert (code, "Traceback" in told) == (3, False), told
    assert name in told
