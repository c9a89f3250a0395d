"""Recordings and bundles with damaged bytes: read, or refused by a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.export.tiny_graph import write_tiny_bundle
from tests.fuzz.mutations import fuzz, mutated
from tests.fuzz.opened_apart import Apart
from tests.streams import labrecorder
from tests.streams.foreign_nwb import trains, write
from tests.streams.labrecorder import hand, markers, spikes
from tests.streams.test_nwb_mutants import whole

SECONDS = 1


@pytest.fixture(scope="module")
def xdf() -> Iterator[tuple[Apart, list[bytes]]]:
    sources = [spikes(seconds=SECONDS), hand(seconds=SECONDS), markers(seconds=SECONDS)]
    seeds = [
        b"".join(labrecorder.file_chunks(chosen, SECONDS))
        for chosen in (sources, sources[:1], sources[2:])
    ]
    apart = Apart("xdf")
    yield apart, [*seeds * 6, bomb(seeds[2])]  # rare, as it takes ten times as long
    apart.tell("xdf")
    apart.close()


def bomb(content: bytes) -> bytes:
    """A header whose entities would grow to gigabytes."""
    entities = b"".join(b'<!ENTITY e%d "%s">' % (i, b"&e%d;" % (i - 1) * 10) for i in range(1, 12))
    text = b'<?xml version="1.0"?><!DOCTYPE info [<!ENTITY e0 "lol">' + entities + b"]><info>"
    header = labrecorder.chunk(2, text + b"<name>&e11;</name></info>", 9)
    return content + header


@fuzz()
def test_xdf(rng: Random, xdf: tuple[Apart, list[bytes]]) -> None:
    apart, seeds = xdf
    apart.check(mutated(rng, seeds))


@pytest.fixture(scope="module")
def nwb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Apart, list[bytes]]]:
    folder = tmp_path_factory.mktemp("nwb")
    small = write(folder / "small.nwb", units=[one[:5] for one in trains(2)], series=False)
    # The small one more often: in the other most bytes are padding.
    seeds = [*[small.read_bytes()] * 9, whole(folder / "whole.nwb").read_bytes()]
    # HDF5 2.0.0 may not return from reading an attribute of a damaged file (docs/files.md).
    apart = Apart("nwb", may_end=True, within_s=5.0)
    yield apart, seeds
    apart.tell("nwb")
    apart.close()


@fuzz()
def test_nwb(rng: Random, nwb: tuple[Apart, list[bytes]]) -> None:
    apart, seeds = nwb
    apart.check(mutated(rng, seeds))


NAMES = (
    "manifest.json", "graph.onnx", "tables.safetensors", "weights.safetensors",
    "parity.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Apart, Path]]:
    path = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", ("u1", "u2")).path
    apart = Apart("bundle", str(path))
    yield apart, path
    apart.tell("bundle")
    apart.close()


@pytest.mark.parametrize("name", NAMES)
@fuzz(share=len(NAMES))
def test_a_bundles_files_with_checksums_made_anew(
    rng: Random, name: str, changed: tuple[Apart, Path]
) -> None:
    apart, path = changed
    content = mutated(rng, [(path / name).read_bytes()])
    apart.check(name.encode() + b"\n" + content)
