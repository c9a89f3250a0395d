"""Builds on this machine: what `spikeloop build` made of a graph, found again by what it is for.

A build belongs to a graph, not to a bundle: decoders that differ in their tables alone share it. It
is written whole, after it passed its gates, or not at all; a driver or library of another version,
or another GPU, does not find it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.bundle import DecoderBundle
from export.compiled.tables import n_rows_of
from export.errors import BackendUnavailable, ExportError

FORMAT = 1
RECORD = "build.json"
N_HEX = 16


@dataclass(frozen=True, slots=True)
class Environment:
    """What an engine runs with, and is useless without.

    Attributes:
        runtime: name and version of the library, e.g. "tensorrt 10.13.2.6".
        device: the GPU, its compute capability and its driver; "cpu" where there is none.
    """

    runtime: str
    device: str


@dataclass(frozen=True, slots=True)
class Build:
    """A build, found.

    Attributes:
        path: its folder.
        record: what it is: `backend`, `precision`, `token_buckets`, `n_rows`, `rows_padded`,
            `environment`, `graph_sha256`, `verdict`.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def token_buckets(self) -> tuple[int, ...]:
        """Tokens that its graphs or engines take, increasing; empty where any number."""
        return tuple(self.record["token_buckets"])

    @property
    def n_rows(self) -> int:
        """Rows that the tables are padded to; 0 where any number does."""
        return int(self.record["n_rows"])

    def file(self, name: str) -> Path:
        """One of its files."""
        return self.path / name

    def bucket_file(self, n_tokens: int, suffix: str) -> Path:
        """The graph or engine of a bucket."""
        return self.path / bucket_name(n_tokens, suffix)

    def fits(self, bundle: DecoderBundle) -> bool:
        """Whether the bundle's tables and bins can be brought into its shapes."""
        n_rows = n_rows_of(bundle)
        rows_fit = self.n_rows in (0, n_rows) or (
            self.record["rows_padded"] and n_rows < self.n_rows
        )
        most = bundle.manifest.token_buckets[-1]
        return bool(rows_fit) and (not self.token_buckets or self.token_buckets[-1] >= most)


def bucket_name(n_tokens: int, suffix: str) -> str:
    """Of the file of one bucket."""
    return f"tokens-{n_tokens:06d}.{suffix}"


def builds_folder() -> Path:
    """Where builds lie: `$SPIKELOOP_BUILDS`, else in the user's cache folder."""
    if chosen := os.environ.get("SPIKELOOP_BUILDS"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spikeloop" / "builds"


def _stem(bundle: DecoderBundle, backend: str, precision: str, environment: Environment) -> str:
    key = [FORMAT, bundle.graph_sha256, backend, precision, environment.runtime, environment.device]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return f"{bundle.graph_sha256[:N_HEX]}-{backend}-{precision}-{digest[:N_HEX]}"


def find_build(
    bundle: DecoderBundle, backend: str, precision: str, environment: Environment
) -> Build:
    """The build of the bundle's graph for a backend.

    Raises:
        BackendUnavailable: there is none that fits, with the command that makes it.
    """
    stem = _stem(bundle, backend, precision, environment)
    for path in sorted(builds_folder().glob(f"{stem}-*")):
        build = _read(path)
        if build is not None and build.fits(bundle):
            return build
    raise BackendUnavailable(
        f"{bundle.path} has not been built for {backend} in {precision} with {environment.runtime} "
        f"on {environment.device}: `spikeloop build {bundle.path} --backend {backend} "
        f"--precision {precision}`"
    )


def _read(path: Path) -> Build | None:
    try:
        return Build(path, json.loads((path / RECORD).read_bytes()))
    except (OSError, ValueError):
        return None


@contextmanager
def new_build(
    bundle: DecoderBundle, precision: str, backend: str, environment: Environment
) -> Iterator[Path]:
    """A folder to write a build into; it gets its name when the block ends without an error.

    Raises:
        ExportError: the disk refuses.
    """
    folder = builds_folder()
    beside = folder / f".{secrets.token_hex(8)}"
    try:
        beside.mkdir(parents=True)
        yield beside
        n_rows = json.loads((beside / RECORD).read_bytes())["n_rows"]
        path = folder / f"{_stem(bundle, backend, precision, environment)}-rows-{n_rows}"
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    except OSError as error:
        raise ExportError(f"cannot write the build into {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
