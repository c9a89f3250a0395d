"""Proof that a GPU decodes here: a small engine built, run and held to its bundle's record."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from export.backends.opening import open_backend
from export.bundle import DecoderBundle, open_bundle
from export.engines.build import build
from export.engines.gpu import find_gpu
from export.errors import BackendUnavailable, ExportError
from export.tensorrt.library import (
    FULL_INSTALL,
    RTX_INSTALL,
    installed_libraries,
    library_for,
)


@dataclass(frozen=True, slots=True)
class Looked:
    """One thing that a GPU needs, looked at.

    Attributes:
        what: e.g. "GPU".
        ok: whether it is there.
        said: what was found, or what to do.
    """

    what: str
    ok: bool
    said: str


def prove_gpu(bundle: DecoderBundle) -> Iterator[Looked]:
    """Look at driver, card and library, and build and run an engine of a bundle.

    Args:
        bundle: a small one.
    """
    try:
        gpu = find_gpu()
        yield Looked("GPU", True, f"{gpu.name}, {gpu.target}, driver {gpu.driver}")
    except BackendUnavailable as error:
        gpu = None
        yield Looked("GPU", False, str(error))
    try:
        library = library_for(gpu.target if gpu else None)
    except BackendUnavailable as error:
        yield Looked("TensorRT", False, str(error))
        return
    is_named = gpu is None or not library.builds_ahead or gpu.target in library.targets
    advice = "" if is_named else f"; it does not name {gpu and gpu.target}: {FULL_INSTALL}"
    install = RTX_INSTALL if library.builds_ahead else FULL_INSTALL
    there = ", ".join(installed_libraries())
    yield Looked("TensorRT", is_named, f"{library} ({install}); installed: {there}{advice}")
    try:
        yield Looked("engine", True, _built(bundle, runs=gpu is not None))
    except ExportError as error:
        yield Looked("engine", False, str(error))


def _built(bundle: DecoderBundle, *, runs: bool) -> str:
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="spikeloop-proof-") as folder:
        copy = open_bundle(Path(shutil.copytree(bundle.path, Path(folder) / "bundle")))
        made = build(copy, "tensorrt", "fp32", with_bundle=True, say=lines.append)
        engine = next(line for line in lines if line.startswith("engine"))
        cards = ", ".join(made.record["targets"])
        if not runs:
            return f"{engine}; for {cards}: built here, to be run on a machine with such a card"
        opened = open_backend(copy, "tensorrt")
    return (
        f"{engine}; parity within {opened.parity_error:.1e}, a step takes p50 "
        f"{opened.step_p50_s * 1e3:.3f}, p99 {opened.step_p99_s * 1e3:.3f} ms"
    )
