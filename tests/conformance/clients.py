"""The client programs under test: how each is made ready, and what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CLIENTS = Path(__file__).parents[2] / "clients"
DEBIAN = "on Debian: apt-get install"
NEWTONSOFT = Path("/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll")


class LackingError(Exception):
    """The machine lacks what a client needs; the text says what."""


@dataclass(frozen=True)
class Program:
    """A client program that is ready to run.

    Attributes:
        command: takes the endpoint and the stale limit as further arguments.
        folder: where it runs.
        versions: of its language and libraries.
    """

    command: tuple[str, ...]
    folder: Path
    versions: str


def python(work: Path) -> Program:
    """The Python client, under this interpreter."""
    import zmq

    versions = f"Python {sys.version.split()[0]}, pyzmq {zmq.__version__}"
    return Program((sys.executable, "conformance.py"), CLIENTS / "python", versions)


def node(work: Path) -> Program:
    """The Node client, with zeromq from the npm registry."""
    _need("node", "npm")
    folder = work / "node"
    shutil.copytree(CLIENTS / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    _build(folder, "npm", "install", "--no-audit", "--no-fund")
    zeromq = _said(folder, "node", "-p", "require('zeromq/package.json').version")
    return Program(
        ("node", "conformance.js"), folder, f"Node {_said(folder, 'node', '-v')}, zeromq {zeromq}"
    )


def cpp(work: Path) -> Program:
    """The C++ client, compiled with warnings as errors."""
    _need("g++")
    for header, package in (("zmq.hpp", "cppzmq-dev"), ("nlohmann/json.hpp", "nlohmann-json3-dev")):
        probe = subprocess.run(
            ["g++", "-E", "-x", "c++", "-"],
            input=f"#include <{header}>\n",
            text=True,
            capture_output=True,
            check=False,
        )
        if probe.returncode:
            raise LackingError(f"there is no {header}; {DEBIAN} {package}")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    folder, program = CLIENTS / "cpp", work / "conformance"
    _build(folder, "g++", *flags, "conformance.cpp", "-o", str(program), "-lzmq")
    return Program((str(program),), folder, f"g++ {_said(folder, 'g++', '-dumpfullversion')}")


def csharp(work: Path) -> Program:
    """The C# rules under Mono, with sockets of libzmq's own: there is no NetMQ among packages."""
    _need("mcs", "mono")
    if not NEWTONSOFT.exists():
        raise LackingError(f"there is no {NEWTONSOFT.name}; {DEBIAN} libnewtonsoft-json5.0-cil")
    folder, program = CLIENTS / "csharp", work / "conformance.exe"
    shutil.copy(NEWTONSOFT, work)
    sources = ("SpikeloopFollower.cs", "conformance.cs")
    options = ("-langversion:7", "-warnaserror", f"-out:{program}", f"-r:{NEWTONSOFT}")
    _build(folder, "mcs", *options, *sources)
    version = _said(folder, "mono", "--version").split()[4]
    return Program(("mono", str(program)), folder, f"Mono {version}, Newtonsoft.Json 6.0.8")


def octave(work: Path) -> Program:
    """The MATLAB client under Octave, with its package zeromq and Java's clock."""
    _need("octave-cli", "java")
    home = Path(shutil.which("java") or "").resolve().parents[1]
    command = ("env", f"JAVA_HOME={home}", "octave-cli", "--quiet")
    probe = [*command, "--eval", "pkg load zeromq; javaMethod('nanoTime','java.lang.System');"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LackingError(f"Octave cannot load zeromq or Java: {done.stderr.strip()[:200]}")
    version = _said(work, "octave-cli", "--version").split()[3]
    return Program((*command, "conformance.m"), CLIENTS / "matlab", f"Octave {version}")


MAKERS: dict[str, Callable[[Path], Program]] = {
    "python": python,
    "node": node,
    "cpp": cpp,
    "csharp": csharp,
    "octave": octave,
}
"""By name; each makes its program ready in a folder, or raises `LackingError`."""


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise LackingError(f"there is no {program}")


def _build(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    if done.returncode and command[0] == "npm":
        raise LackingError(f"npm could not install zeromq: {done.stderr.strip()[-300:]}")
    if done.returncode:
        raise AssertionError(done.stdout + done.stderr)


def _said(folder: Path, *command: str) -> str:
    return subprocess.run(
        command, cwd=folder, text=True, capture_output=True, check=True
    ).stdout.strip()
