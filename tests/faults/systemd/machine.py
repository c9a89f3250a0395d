"""Boot systemd as the first process of new namespaces: a machine beside this one.

It sees this machine's files under an overlay, so that nothing of it stays, and has a network of its
own. It runs the units that a test gives it, and no unit of this machine's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.system.running import HungError, unique, wait_until

ROOT = Path(__file__).parents[3]
BOOT = Path(__file__).with_name("boot.sh")
SYSTEMD = Path("/lib/systemd/systemd")
NEEDED = ("unshare", "nsenter", "pivot_root", "ip", "systemctl")
TARGET = """[Unit]
Requires=basic.target
After=basic.target
"""


def _groups() -> Path | None:
    """Where control groups of version 2 are made; None where there are none."""
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (place / "cgroup.procs").exists() and (place / "cgroup.controllers").exists():
            return place if os.access(place, os.W_OK) else None
    return None


def why_not() -> str:
    """Say what this machine lacks for booting another; "" for nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists():
        return f"there is no {SYSTEMD}"
    for name in NEEDED:
        if shutil.which(name) is None:
            return f"there is no {name}"
    if _groups() is None:
        return "there are no control groups of version 2"
    return ""


class Machine:
    """A booted machine.

    Args:
        folder: new; for its files.
        units: text of each unit by its name; those of `wanted` are started.
        wanted: units that are started at boot.
        config: of the daemon, at `/etc/spikeloop/rig.toml`.
    """

    def __init__(self, folder: Path, units: dict[str, str], wanted: list[str], config: str) -> None:
        folder.mkdir()
        self.shared = folder.with_name(f"{folder.name}-shared")
        self.shared.mkdir()
        target = TARGET + f"Wants={' '.join(wanted)}\n"
        for name, text in (units | {"rig.target": target}).items():
            (self.shared / name).write_text(text)
        (self.shared / "rig.toml").write_text(config)
        groups = _groups()
        assert groups is not None
        self.group = groups / unique("spikeloop")
        self.group.mkdir()
        self._console, ours = os.openpty()
        names = ("mount", "pid", "cgroup", "uts", "ipc", "net")
        places = (folder, ROOT, sysconfig.get_path("purelib"), sys.base_prefix)
        self._process = subprocess.Popen(
            ["unshare", *(f"--{name}" for name in names), "--fork", "--kill-child",
             "sh", str(BOOT), *map(str, places)],
            stdin=ours, stdout=ours, stderr=ours, start_new_session=True,
            preexec_fn=lambda: (self.group / "cgroup.procs").write_text(str(os.getpid())),
        )  # fmt: skip
        os.close(ours)
        os.set_blocking(self._console, False)
        self._said = ""

    @property
    def said(self) -> str:
        """What came on its console so far."""
        with suppress(BlockingIOError, OSError):  # nothing, or it has ended
            while more := os.read(self._console, 1 << 16):
                self._said += more.decode(errors="replace")
        return self._said

    def wait_for_boot(self) -> None:
        """Wait until its target is reached."""
        try:
            wait_until(lambda: "Reached target rig.target" in self.said or self._ended())
        except HungError as err:
            raise AssertionError(self.said) from err

    def _ended(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"it did not boot:\n{self.said}")
        return False

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program in it; `shared` is the folder that both machines see."""
        return subprocess.Popen(self._inside(command))

    def ask(self, *command: str) -> str:
        """Run a command in it to the end; what it printed."""
        done = subprocess.run(
            self._inside(command), capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def _inside(self, command: Sequence[str]) -> list[str]:
        unshare = self._process.pid
        first = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0]
        return ["nsenter", "--target", first, "--all", *command]

    def told(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.ask("systemctl", "show", "--value", "--property", name, unit)

    def close(self) -> None:
        """End everything in it."""
        (self.group / "cgroup.kill").write_text("1")
        self._process.wait(30)
        os.close(self._console)

        def is_gone() -> bool:
            for group in sorted(self.group.rglob("*"), reverse=True):
                if group.is_dir():
                    with suppress(OSError):
                        group.rmdir()
            with suppress(OSError):
                self.group.rmdir()
            return not self.group.exists()

        wait_until(is_gone)
