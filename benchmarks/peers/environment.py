"""The interpreter that the peers run with: one that is named, or one with their packages in it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from service.errors import ConfigError

EXTRA = "peers"
NEEDED = ("torch_brain", "ezmsg.lsl", "ezmsg.learn", "sklearn", "pylsl")
PROGRAMS = Path(__file__).with_name("programs")


def program(name: str) -> str:
    """Return the path to a peer's program."""
    return str(PROGRAMS / f"{name}.py")


def packages(required: Sequence[str] | None = None) -> list[str]:
    """Return the packages that the extra `peers` names.

    Args:
        required: the distribution's requirements; by default those of the installed one.

    Raises:
        ConfigError: spikeloop was installed before it had that extra.
    """
    if required is None:
        required = importlib.metadata.requires("spikeloop") or []
    marked = (line.partition(";") for line in required)
    found = [name.strip() for name, _, marker in marked if f"'{EXTRA}'" in marker.replace('"', "'")]
    if not found:
        raise ConfigError("the installed spikeloop has no extra `peers`: pip install -e . again")
    return found


def cache_folder() -> Path:
    """Return the folder for the peers' environment: it is big, and made once."""
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "spikeloop" / "peers"


def interpreter(
    named: Path | None, say: Callable[[str], None], needed: Sequence[str] = NEEDED
) -> Path:
    """The peers' python; makes its environment where none is named and none is there.

    Args:
        named: one that has the packages; None for the cached environment.
        say: told what takes long.
        needed: modules that it must have.

    Raises:
        ConfigError: it lacks a package, or its environment cannot be made.
    """
    python = named or cache_folder() / "bin" / "python"
    if not python.exists():
        if named is not None:
            raise ConfigError(f"no interpreter {named}")
        _make(cache_folder(), say)
    lacking = [name for name in needed if not _has(python, name)]
    if lacking:
        raise ConfigError(
            f"{python} lacks {', '.join(lacking)}: install what the extra `peers` names there, or "
            f"remove {cache_folder()} and let this command make it anew"
        )
    return python


def _make(folder: Path, say: Callable[[str], None]) -> None:
    say(f"making an environment for the peers in {folder}: minutes, once")
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages()],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            told = done.stderr.strip().splitlines()[-3:]
            raise ConfigError(f"{' '.join(command[:4])} failed: " + "\n".join(told))


def _has(python: Path, module: str) -> bool:
    done = subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0


def versions(python: Path) -> dict[str, str]:
    """Versions of the peers' packages, by name."""
    asked = (
        "import importlib.metadata as m\n"
        "for d in m.distributions():\n"
        "    n = d.metadata['Name'].replace('-', '_')\n"
        "    if n.startswith('ezmsg') or n in ('torch', 'torch_brain', 'pylsl', 'numpy',"
        " 'scikit_learn'):\n"
        "        print(n, d.version)\n"
    )
    done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=True)
    pairs = (line.partition(" ") for line in sorted(done.stdout.splitlines()))
    return {name: version for name, _, version in pairs}
