"""Neural Data Simulator as it is released, in an environment of its own: it needs numpy 1."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pylsl.lib

from service.caches import provide_cache_folder

PACKAGES = ("neural-data-simulator==0.2.10", "pylsl==1.16.2")
"""pylsl 1.18 no longer has the `stream_info` that it uses."""
PYTHONS = ("python3.11", "python3.10", "python3.9")
INSTALLED_WITHIN_S = 600.0
_RUN = "from neural_data_simulator.scripts.run_ephys_generator import run; run()"
_SETTINGS = (
    "import neural_data_simulator as n, pathlib as p;"
    "print(p.Path(n.__file__).parent / 'config' / 'settings.yaml')"
)


class NotInstalledError(Exception):
    """The simulator cannot be installed here."""


def interpreter() -> Path:
    """Find the environment's python; the environment is made where there is none.

    Raises:
        NotInstalledError: no Python that it runs on, or its packages cannot be had.
    """
    provide_cache_folder()
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(caches) / "spikeloop" / "nds-0.2.10"
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(_base_python(), "-m", "venv", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", *PACKAGES)
        finished.touch()
    return python


def _base_python() -> str:
    if sys.version_info < (3, 12):
        return sys.executable
    found = next((path for name in PYTHONS if (path := shutil.which(name))), None)
    if found is None:
        raise NotInstalledError("it runs on Python 3.9 to 3.11, and there is none here")
    return found


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALLED_WITHIN_S, check=True
        )
    except subprocess.CalledProcessError as err:
        raise NotInstalledError(f"{command[1:4]}: {err.stderr.strip()[-300:]}") from err
    except (OSError, subprocess.TimeoutExpired) as err:
        raise NotInstalledError(str(err)) from err
    return done.stdout.strip()


class EphysGenerator:
    """Its `ephys_generator` with constant rates (`testing`), from unit 1 at 2 Hz to 49 at 98 Hz.

    Args:
        python: see `interpreter`.
        name: of its stream of spikes.
        push_hz: how often it pushes what it has made.
    """

    def __init__(self, python: Path, name: str, push_hz: float) -> None:
        output = "ephys_generator.output"
        overrides = {
            "ephys_generator.input.type": "testing",
            "ephys_generator.lsl_chunk_frequency": f"{push_hz:g}",
            "ephys_generator.random_seed": "7",
            "ephys_generator.noise.samples": "30000",
            f"{output}.spike_events.lsl.stream_name": name,
            f"{output}.spike_events.lsl.source_id": name,
            f"{output}.raw.lsl.stream_name": f"{name}-raw",
            f"{output}.lfp.lsl.stream_name": f"{name}-lfp",
        }
        self._home = tempfile.TemporaryDirectory()
        self._told = (Path(self._home.name) / "told.txt").open("w+b")
        self._popen = subprocess.Popen(
            [
                str(python), "-c", _RUN, "--settings-path", _run(str(python), "-c", _SETTINGS),
                "--overrides", *(f"{key}={value}" for key, value in overrides.items()),
            ],
            stdout=self._told,
            stderr=self._told,
            env=os.environ | {"HOME": self._home.name, "PYLSL_LIB": pylsl.lib.lib._name},
        )  # fmt: skip

    @property
    def told(self) -> str:
        """What it wrote so far."""
        self._told.seek(0)
        return self._told.read().decode(errors="replace")

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def close(self) -> None:
        """End it."""
        self._popen.send_signal(signal.SIGKILL)
        self._popen.wait()
        self._told.close()
        self._home.cleanup()
