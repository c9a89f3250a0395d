"""Recordings and bundles with damaged bytes: read, or refused by a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.export.tiny_graph import write_tiny_bundle
from tests.fuzz.mutations import fuzz, mutated
from tests.fuzz.opened_apart import Apart
from tests.streams import labrecorder
from tests.streams.foreign_nwb import trains, write
from tests.streams.labrecorder import hand, markers, spikes
from tests.streams.test_nwb_mutants import whole

SECONDS = 3


@pytest.fixture(scope="module")
def xdf() -> Iterator[tuple[Apart, list[bytes]]]:
    sources = [spikes(seconds=SECONDS), hand(seconds=SECONDS), markers(seconds=SECONDS)]
    seeds = [
        b"".join(labrecorder.file_chunks(chosen, SECONDS))
        for chosen in (sources, sources[:1], sources[2:])
    ]
    apart = Apart("xdf")
    yield apart, [*seeds, bomb(seeds[2])]
    apart.close()


def bomb(content: bytes) -> bytes:
    """A header whose entities would grow to gigabytes."""
    entities = b"".join(b'<!ENTITY e%d "%s">' % (i, b"&e%d;" % (i - 1) * 10) for i in range(1, 12))
    text = b'<?xml version="1.0"?><!DOCTYPE info [<!ENTITY e0 "lol">' + entities + b"]><info>"
    header = labrecorder.chunk(2, text + b"<name>&e11;</name></info>", 9)
    return content + header


@fuzz()
@given(data=st.data())
def test_xdf(i_round: int, xdf: tuple[Apart, list[bytes]], data: st.DataObject) -> None:
    apart, seeds = xdf
    apart.check(data.draw(mutated(seeds)))


@pytest.fixture(scope="module")
def nwb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Apart, list[bytes]]]:
    folder = tmp_path_factory.mktemp("nwb")
    small = write(folder / "small.nwb", units=[one[:5] for one in trains(2)], series=False)
    seeds = [small.read_bytes(), whole(folder / "whole.nwb").read_bytes()]
    # HDF5 2.0.0 may not return from reading an attribute of a damaged file (docs/files.md).
    apart = Apart("nwb", may_end=True)
    yield apart, seeds
    apart.close()
    for told in apart.ended:
        print(f"nwb: {told}")  # noqa: T201


@fuzz()
@given(data=st.data())
def test_nwb(i_round: int, nwb: tuple[Apart, list[bytes]], data: st.DataObject) -> None:
    apart, seeds = nwb
    apart.check(data.draw(mutated(seeds)))


NAMES = (
    "manifest.json", "graph.onnx", "tables.safetensors", "weights.safetensors",
    "parity.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Apart, Path]]:
    path = write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", ("u1", "u2")).path
    apart = Apart("bundle", str(path))
    yield apart, path
    apart.close()


@pytest.mark.parametrize("name", NAMES)
@fuzz(share=len(NAMES))
@given(data=st.data())
def test_a_bundles_files_with_checksums_made_anew(
    i_round: int, name: str, changed: tuple[Apart, Path], data: st.DataObject
) -> None:
    apart, path = changed
    content = data.draw(mutated([(path / name).read_bytes()]))
    apart.check(name.encode() + b"\n" + content)
