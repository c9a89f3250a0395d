"""Build wheel and sdist, and try the wheel as a stranger would: `make release-check`.

Usage: python packaging/release_check.py. Everything happens in a temporary folder but for `dist/`,
which holds what was built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
ROOMS = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
NEEDED = ("tests/conftest.py", "docs/index.md", "examples/sender.py", "mkdocs.yml", "LICENSE")
"""What an sdist must hold for others to test and to package it."""


def main() -> None:
    """Build, look into both files, install the wheel, run it."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--wheel", str(ROOT))
    wheel, sdist = one("*.whl"), one("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    with tempfile.TemporaryDirectory(prefix="spikeloop-release-") as folder:
        check_same(sdist, wheel, Path(folder))
        check_installed(wheel, Path(folder))
    say(f"{wheel.name} and {sdist.name} are sound")


def one(pattern: str) -> Path:
    """Return the only file in `dist/` that fits."""
    (found,) = (ROOT / "dist").glob(pattern)
    return found


def check_wheel(wheel: Path) -> None:
    """Hold the wheel's version, modules and typing marks against the project's."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(info).decode())
    require(told["Version"] == VERSION, f"the wheel says version {told['Version']}, not {VERSION}")
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    require(top == ROOMS, f"the wheel holds {sorted(top)}, not {sorted(ROOMS)}")
    for room in ROOMS - {"configs"}:
        require(f"{room}/py.typed" in names, f"{room} has no py.typed in the wheel")
    require("configs/bundles/demo/graph.onnx" in names, "the shipped decoder is not in the wheel")


def check_sdist(sdist: Path) -> None:
    """Look that tests, docs and examples are in it, and nothing that is made."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in NEEDED:
        require(name in names, f"{name} is not in the sdist")
    made = [n for n in names if n.startswith((".venv", "runs/", "site/", "dist/"))]
    require(not made, f"the sdist holds what is made: {made[:3]}")


def check_same(sdist: Path, wheel: Path, folder: Path) -> None:
    """Build a wheel from the sdist; its files must be the wheel's."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "again"), str(source))
    (again,) = (folder / "again").glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        differing = set(first.namelist()) ^ set(second.namelist())
    require(not differing, f"wheels of the checkout and of the sdist differ: {sorted(differing)}")


def check_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel in a new environment and use it, away from the checkout."""
    home = folder / "environment"
    venv.create(home, with_pip=True)
    python, spikeloop = home / "bin" / "python", home / "bin" / "spikeloop"
    run(str(python), "-m", "pip", "install", "--quiet", f"spikeloop[cpu] @ {wheel.as_uri()}")
    away = folder / "away"
    away.mkdir()

    def use(*arguments: str) -> str:
        return run(str(spikeloop), *arguments, cwd=away)

    require(use("--version").strip() == f"spikeloop {VERSION}", "the command says another version")
    use("demo", "--seconds", "15")
    use("init", "rig.toml", "--stream", "simulated")
    check_extras(python, home, lambda: run(str(spikeloop), "doctor", cwd=away, may_fail=True))


def check_extras(python: Path, home: Path, doctor: Callable[[], str]) -> None:
    """`cpu` and `gpu` exclude each other: with both installed, `doctor` must say so."""
    require("are both installed" not in doctor(), "doctor sees extras that are not there")
    (packages,) = home.glob("lib/python*/site-packages")
    # Its name and version are all that matters; the package itself is 400 MB.
    info = packages / "onnxruntime_gpu-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.0\n")
    require("are both installed" in doctor(), "doctor does not see that extras exclude each other")
    shutil.rmtree(info)


def run(*command: str, cwd: Path = ROOT, may_fail: bool = False) -> str:
    """Run a command without the checkout on the path; return what it printed."""
    say(" ".join(command))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment | {"COLUMNS": "500"}, stdout=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    if not may_fail and done.returncode != 0:
        say(done.stdout)  # it says why
        require(False, f"it ended with code {done.returncode}")
    return done.stdout


def require(holds: bool, what: str) -> None:
    """End with a line if something does not hold."""
    if not holds:
        sys.exit(f"release-check: {what}")


def say(line: str) -> None:
    """Tell what is done."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
