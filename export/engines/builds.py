"""Builds on this machine: what `spikeloop build` made of a graph, found again by what it is for.

A build belongs to a graph, not to a bundle: decoders that differ in their tables alone share it. It
is written whole, after it passed its gates, or not at all. A library of another version does not
find it, nor does a GPU that it was not made for. It lies in the user's cache, or in the folder
`engines` of its bundle, with which it is then sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.bundle import DecoderBundle
from export.engines.tables import n_rows_of
from export.errors import BackendUnavailable, ExportError, NotProvidedError
from streams.files import written_whole

FORMAT = 2
RECORD = "build.json"
N_HEX = 16
WITH_BUNDLE = "engines"


@dataclass(frozen=True, slots=True)
class Environment:
    """Library and device that an engine runs with, and is useless without.

    Attributes:
        runtime: name and version of the library, e.g. "tensorrt 10.13.2.6".
        device: the GPU, its compute capability and its driver; "cpu" where there is none.
        targets: compute capabilities that engines are made for ahead, such as "sm89"; empty where
            they are made on the device and for it alone.
    """

    runtime: str
    device: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """A build, found.

    Attributes:
        path: its folder.
        record: what it is: `backend`, `precision`, `token_buckets`, `n_rows`, `rows_padded`,
            `environment`, `targets`, `graph_sha256`, `files` (checksums), `verdict`.
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

    @property
    def is_judged(self) -> bool:
        """Return True if its precision is fp32, or the R2 that it costs is known."""
        return self.record["precision"] == "fp32" or "drop" in self.record["verdict"]

    def file(self, name: str) -> Path:
        """One of its files."""
        return self.path / name

    def read_bucket(self, n_tokens: int, suffix: str) -> bytes:
        """The graph or engine of a bucket.

        Raises:
            BackendUnavailable: it is gone or is not what was built.
        """
        path = self.path / bucket_name(n_tokens, suffix)
        try:
            held = path.read_bytes()
        except OSError as error:
            raise BackendUnavailable(
                f"{path}: {error.strerror}; `spikeloop build` it again"
            ) from error
        if hashlib.sha256(held).hexdigest() != self.record["files"].get(path.name):
            raise BackendUnavailable(
                f"{path}: not what was built (checksum differs); `spikeloop build` it again, or "
                "copy the bundle again from its source"
            )
        return held

    def runs_in(self, environment: Environment) -> bool:
        """Return True if it was made with the library, and for the device or one of its targets."""
        runtime, device = self.record["environment"]
        targets = set(self.record["targets"])
        made_for = targets & set(environment.targets) if targets else device == environment.device
        return bool(runtime == environment.runtime and made_for)

    def fits(self, bundle: DecoderBundle) -> bool:
        """Return True if the bundle's tables and bins can be brought into its shapes."""
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
    """Folder of the builds: `$SPIKELOOP_BUILDS`, else in the user's cache folder."""
    if chosen := os.environ.get("SPIKELOOP_BUILDS"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spikeloop" / "builds"


def _stem(bundle: DecoderBundle, backend: str, precision: str) -> str:
    return f"{bundle.graph_sha256[:N_HEX]}-{backend}-{precision}"


def _paths(bundle: DecoderBundle, stem: str) -> list[Path]:
    folders = (builds_folder(), bundle.path / WITH_BUNDLE)
    return [path for folder in folders for path in folder.glob(f"{stem}-*")]


def names_of_builds(bundle: DecoderBundle) -> list[str]:
    """Names of all builds of the bundle's graph, sorted; none where the user has no home."""
    try:
        return sorted(path.name for path in _paths(bundle, bundle.graph_sha256[:N_HEX]))
    except RuntimeError:
        return []


def find_build(
    bundle: DecoderBundle, backend: str, precision: str, environment: Environment
) -> Build:
    """The newest build of the bundle's graph for a backend.

    Raises:
        BackendUnavailable: there is none that fits, with the command that makes it.
    """
    stem, command = _stem(bundle, backend, precision), f"spikeloop build {bundle.path} "
    command += f"--backend {backend} --precision {precision}"
    found = [build for build in map(_read, _paths(bundle, stem)) if build is not None]
    here = [one for one in found if one.runs_in(environment) and one.fits(bundle)]
    if judged := [one for one in here if one.is_judged]:
        return max(judged, key=lambda one: str(one.record["verdict"]["date"]))
    if here:
        raise NotProvidedError(
            f"{here[0].path} is there, but not the R2 that {precision} costs: `{command} --session "
            "SESSION.nwb`, with a recording that the decoder has not learnt from"
        )
    others = sorted({_told(one) for one in found})
    also = f"; there are builds for: {'; '.join(others)}" if others else ""
    where = f"{environment.device} ({', '.join(environment.targets)})"
    raise NotProvidedError(
        f"{bundle.path} has not been built for {backend} in {precision} with {environment.runtime} "
        f"on {where if environment.targets else environment.device}: `{command}`{also}"
    )


def _told(build: Build) -> str:
    runtime, device = build.record["environment"]
    return f"{runtime} on {', '.join(build.record['targets']) or device}"


def _read(path: Path) -> Build | None:
    try:
        record = json.loads((path / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return Build(path, record) if record.get("format") == FORMAT else None


@contextmanager
def new_build(
    bundle: DecoderBundle, record: dict[str, Any], folder: Path | None = None
) -> Iterator[tuple[Path, Path]]:
    """A folder to write a build into; it gets its name when the block ends without an error.

    Args:
        bundle: whose graph it is.
        record: of the build; it is written as it is when the block ends.
        folder: to keep it in, by default `builds_folder()`.

    Yields:
        The folder to write into, and the path that it will have.

    Raises:
        ExportError: the disk refuses.
    """
    folder = folder or builds_folder()
    made_for = json.dumps([record["environment"], record["targets"], record["n_rows"]])
    digest = hashlib.sha256(made_for.encode()).hexdigest()[:N_HEX]
    path = folder / f"{_stem(bundle, record['backend'], record['precision'])}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as beside:
            beside.mkdir()
            yield beside, path
            (beside / RECORD).write_text(json.dumps(record, indent=1) + "\n")
            shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"cannot write the build into {folder}: {error.strerror}") from error


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a build."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }
