"""Transfers in any order, of any names: nothing is written outside, and every refusal is one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.sending import CHUNK_BYTES
from service.deploy.transfer import TransferError, Transfers
from tests.fuzz.mutations import fuzz

NAMES = st.one_of(
    st.sampled_from((
        "graph.onnx", "manifest.json", "report/a.html", "engines/x/y.plan", "signature.json",
        "../x", "/tmp/x", "report/../../x", "a/b", ".", "..", "", "a\0b", "report", "engines",
        "x" * 300, "report/report", "graph.onnx/x", "CON", "-rf", "a\nb", "\ud800", "e\u0301",
    )),
    st.text(max_size=12),
)  # fmt: skip
SIZES = st.one_of(
    st.integers(0, 200), st.sampled_from((-1, 2**31, 2**40, 2**64, CHUNK_BYTES)), st.booleans(),
    st.floats(), st.text(max_size=3), st.none(),
)  # fmt: skip
CHUNK = st.tuples(NAMES, st.integers(-1, 200), st.binary(max_size=200), st.booleans())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def transfers(folder: Path) -> Transfers:
    """The daemon's: one that was left half done is dropped by the next."""
    return Transfers(folder / "incoming")


@fuzz()
@given(data=st.data())
def test_any_transfer(
    i_round: int, folder: Path, transfers: Transfers, data: st.DataObject
) -> None:
    sizes = data.draw(st.dictionaries(NAMES, SIZES, max_size=4))
    try:
        held = {"graph.onnx": 3} if data.draw(st.booleans()) else {}
        transfer = transfers.begin(sizes | held)
    except TransferError:
        transfer = data.draw(st.sampled_from(("", "0" * 12, "../x")))
    for name, offset, content, is_honest in data.draw(st.lists(CHUNK, max_size=4)):
        digest = hashlib.sha256(content).hexdigest() if is_honest else "0" * 64
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
