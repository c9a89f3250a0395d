"""Commands killed (SIGKILL) while they write: what they left behind is gone at the next start."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from calibration.registry import Registry
from export.bundle import open_bundle
from tests.export.tiny_graph import write_tiny_bundle

WITHIN_S = 30.0
_DIE = "import os, sys; from pathlib import Path; from calibration import registry as r\n"
_IN_ADD = (
    _DIE + "real = r.open_bundle\n"
    "def die(path):\n"
    "    if str(path).endswith('.part'): os.kill(os.getpid(), 9)\n"
    "    return real(path)\n"
    "r.open_bundle = die\n"
    "r.Registry(Path(sys.argv[1])).add(Path(sys.argv[2]), 'new')"
)
_IN_PROMOTE = (
    _DIE + "r.Registry._note = lambda *_: os.kill(os.getpid(), 9)\n"
    "r.Registry(Path(sys.argv[1])).promote(sys.argv[2], 'better')"
)
_AT_ANY_TIME = (
    _DIE + "registry = r.Registry(Path(sys.argv[1])); print(flush=True)\n"
    "for i in range(10**6): registry.promote(sys.argv[2 + i % 2], str(i))"
)


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    for i in range(2):
        write_tiny_bundle(tmp_path / f"tiny-{i}", ("u1", "u2"), name=f"tiny-{i}", seed=i)
    return [tmp_path / f"tiny-{i}" for i in range(2)]


def litter(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob(".*") if path.name != ".lock")


def killed(code: str, *arguments: object) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, timeout=WITHIN_S, check=False)
    assert done.returncode == -signal.SIGKILL


def test_in_the_middle_of_a_copy_and_of_a_promotion(tmp_path: Path, bundles: list[Path]) -> None:
    root = tmp_path / "registry"
    registry = Registry(root)
    ids = [registry.add(bundles[0], "new")]
    registry.promote(ids[0], "first")
    (root / ".mine.part").touch()
    (root / "store" / ".notes").touch()
    for act in ((_IN_ADD, root, bundles[1]), (_IN_PROMOTE, root, ids[0])):
        killed(*act)
        assert len(litter(root)) == 3
        again = Registry(root)
        assert litter(root) == [".mine.part", ".notes"]
    (root / "store" / ".notes").unlink()
    assert again.current() == ids[0]
    assert [entry.id for entry in again.entries()] == ids
    again.add(bundles[1], "once more")
    assert len(again.entries()) == 2


@pytest.mark.long
def test_at_any_time(tmp_path: Path, bundles: list[Path]) -> None:
    root, chance = tmp_path / "registry", random.Random(2)
    ids = [Registry(root).add(path, "new") for path in bundles]
    for _ in range(8):
        command = [sys.executable, "-c", _AT_ANY_TIME, str(root), *ids]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                writer.wait(chance.random() * 0.05)
            writer.kill()
        registry = Registry(root)
        assert litter(root) == []
        current = registry.current()
        if current is not None:
            assert open_bundle(root / "current").manifest.id == current
            assert current in ids
