"""Transfers in any order, of any names: nothing is written outside, and every refusal is one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from export.sending import CHUNK_BYTES
from service.deploy.transfer import TransferError, Transfers
from tests.fuzz.mutations import fuzz

NAMES = (
    "graph.onnx", "manifest.json", "report/a.html", "engines/x/y.plan", "signature.json",
    "../x", "/tmp/x", "report/../../x", "a/b", ".", "..", "", "a\0b", "report", "engines",
    "x" * 300, "report/report", "graph.onnx/x", "CON", "-rf", "a\nb", "\ud800", "e\u0301",
)  # fmt: skip
SIZES = (-1, 2**31, 2**40, 2**64, CHUNK_BYTES, False, True, 0.0, 1.5, float("nan"), "3", "", None)
PLAIN, BYTES_AT_MOST = NAMES[:5], 200


def name_of(rng: Random) -> str:
    """A name that a transfer may meet, or any text."""
    if rng.random() < 0.8:
        return rng.choice(NAMES)
    return "".join(
        chr(rng.choice((rng.randrange(128), rng.randrange(0x110000))))
        for _ in range(rng.randrange(12))
    )


def size_of(rng: Random) -> Any:
    """A size, or what is none."""
    return rng.choice(SIZES) if rng.random() < 0.5 else rng.randrange(BYTES_AT_MOST)


@pytest.fixture(scope="module")
def folder(quick_folder: Path) -> Path:
    return quick_folder


@pytest.fixture(scope="module")
def transfers(folder: Path) -> Transfers:
    """The daemon's: one that was left half done is dropped by the next."""
    return Transfers(folder / "incoming")


@fuzz()
def test_any_transfer(rng: Random, folder: Path, transfers: Transfers) -> None:
    sizes: dict[str, Any] = {name_of(rng): size_of(rng) for _ in range(rng.randrange(4))}
    if rng.random() < 0.7:  # one that may be whole in the end
        sizes = {name: rng.randrange(BYTES_AT_MOST) for name in rng.sample(PLAIN, k=2)}
    try:
        held = {"graph.onnx": 3} if rng.random() < 0.5 else {}
        transfer = transfers.begin(sizes | held)
    except TransferError:
        transfer = rng.choice(("", "0" * 12, "../x"))
    # Mostly each file in one whole chunk; the rest of any name, place, length and sum.
    names = [*sizes, *held] + [name_of(rng)] * (rng.random() < 0.2)
    for name in rng.sample(names, k=len(names)):
        size = (sizes | held).get(name)
        fits = isinstance(size, int) and 0 <= size <= BYTES_AT_MOST and rng.random() < 0.9
        content = rng.randbytes(int(size) if fits else rng.randrange(BYTES_AT_MOST))
        digest = hashlib.sha256(content).hexdigest() if rng.random() < 0.9 else "0" * 64
        offset = 0 if rng.random() < 0.9 else rng.randint(-1, BYTES_AT_MOST)
        try:
            transfers.chunk(transfer, name, offset, digest, content)
        except TransferError:
            break
    try:
        whole = transfers.finish(transfer)
    except TransferError:
        pass
    else:
        assert whole.parent == folder / "incoming"
        for path in sorted(whole.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        whole.rmdir()
    assert [path.name for path in folder.iterdir()] in ([], ["incoming"])
