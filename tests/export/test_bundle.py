from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from export.bundle import DecoderBundle, open_bundle, write_bundle
from export.errors import BundleError
from tests.export.tiny_graph import tiny_parts, write_tiny_bundle

FILES = (
    "manifest.json",
    "graph.onnx",
    "tables.safetensors",
    "weights.safetensors",
    "parity.safetensors",
)


def _refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    return str(caught.value)


def test_opens_as_written(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"], hop_s=0.01, bin_s=0.05)
    written = write_bundle(tmp_path / "b", fields, **contents, reports={"a.html": b"<p>"})
    found = open_bundle(tmp_path / "b")
    assert found.manifest == written.manifest
    assert (found.manifest.hop_s, found.manifest.bin_s) == (0.01, 0.05)
    assert found.row_of_key == {"u1": 0, "u2": 1}
    assert found.graph_path.read_bytes() == contents["graph"]
    assert (found.path / "report/a.html").read_bytes() == b"<p>"
    for name, values in contents["tables"].items():
        np.testing.assert_array_equal(found.tables[name], values)
    np.testing.assert_array_equal(found.weights()["nothing"], contents["weights"]["nothing"])


def test_parity_record_as_written(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2", "u3"], with_position=True)
    record = write_bundle(tmp_path / "b", fields, **contents).parity()
    given_record = contents["parity"]
    assert len(record) == len(given_record) == 20
    assert record.outputs.keys() == {"velocity", "position"}
    for i_beat in range(len(record)):
        found, expected = record.window(i_beat), given_record.window(i_beat)
        np.testing.assert_array_equal(found.unit, expected.unit)
        np.testing.assert_array_equal(found.t_rel, expected.t_rel)
    np.testing.assert_array_equal(record.outputs["velocity"], given_record.outputs["velocity"])


def test_no_two_runs_share_an_id_unless_they_say_the_same(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    first = write_bundle(tmp_path / "1", fields, **contents).manifest.id
    later = fields | {"created_utc": "2031-01-01T00:00:00Z"}
    assert write_bundle(tmp_path / "2", later, **contents).manifest.id == first
    renamed = fields | {"units": [{"key": "u1", "row": 0}, {"key": "u9", "row": 1}]}
    assert write_bundle(tmp_path / "3", renamed, **contents).manifest.id != first
    slower = fields | {"hop_s": 0.015}
    assert write_bundle(tmp_path / "4", slower, **contents).manifest.id != first


def test_bundles_of_one_graph_share_its_checksum(tmp_path: Path) -> None:
    one = write_tiny_bundle(tmp_path / "1", ["u1"])
    other = write_tiny_bundle(tmp_path / "2", ["u1", "u2"])
    assert one.graph_sha256 == other.graph_sha256
    assert one.manifest.id != other.manifest.id


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(bundle: DecoderBundle, name: str) -> None:
    (bundle.path / name).unlink()
    text = _refusal(bundle.path)
    assert name in text
    assert "No such file" in text


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_named(bundle: DecoderBundle, name: str) -> None:
    where = bundle.path / name
    os.truncate(where, where.stat().st_size // 2)
    text = _refusal(bundle.path)
    assert str(where) in text
    assert ("JSON" if name == "manifest.json" else "bytes where the manifest declares") in text
    assert "copy the bundle again" in text


@pytest.mark.parametrize("name", FILES[1:])
def test_flipped_bit_is_named(bundle: DecoderBundle, name: str) -> None:
    where = bundle.path / name
    content = bytearray(where.read_bytes())
    content[len(content) // 2] ^= 1
    where.write_bytes(content)
    assert f"{where}: its content is not what was exported" in _refusal(bundle.path)


@pytest.fixture(scope="module")
def struck(pristine: DecoderBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("struck") / "tiny"
    shutil.copytree(pristine.path, where)
    return where


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(FILES), share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(struck: Path, name: str, share: float, bit: int) -> None:
    where = struck / name
    content = where.read_bytes()
    i_byte = int(share * len(content))
    date = content.find(b'"created_utc"') if name == "manifest.json" else -1
    # The date tells nothing of the decoder, and no sum holds it.
    assume(not 0 <= date <= i_byte < content.index(b"\n", max(date, 0)))
    try:
        where.write_bytes(
            content[:i_byte] + bytes([content[i_byte] ^ 1 << bit]) + content[i_byte + 1 :]
        )
        with pytest.raises(BundleError):
            open_bundle(struck)
    finally:
        where.write_bytes(content)


def _rewrite(bundle: DecoderBundle, change: Callable[[dict[str, Any]], None]) -> str:
    where = bundle.path / "manifest.json"
    content = json.loads(where.read_text())
    change(content)
    where.write_text(json.dumps(content))
    return _refusal(bundle.path)


def test_wrong_id(bundle: DecoderBundle) -> None:
    text = _rewrite(bundle, lambda content: content.update(id="0" * 64))
    assert "`id` is not that of its files" in text


def test_unknown_field(bundle: DecoderBundle) -> None:
    text = _rewrite(bundle, lambda content: content.update(colour="red"))
    assert "manifest.json: `colour`" in text


def test_unknown_format(bundle: DecoderBundle) -> None:
    text = _rewrite(bundle, lambda content: content.update(format=7))
    assert "`format` is 7, this program reads 1" in text


def test_edited_hop_is_seen(bundle: DecoderBundle) -> None:
    text = _rewrite(bundle, lambda content: content.update(hop_s=0.019))
    assert "manifest.json: its content is not what was exported" in text


def test_files_that_lack_one(bundle: DecoderBundle) -> None:
    text = _rewrite(bundle, lambda content: content["files"].pop("graph.onnx"))
    assert "`files` lacks graph.onnx" in text


@pytest.mark.parametrize("held", ["[1, 2]", "null", '"text"', "{", ""])
def test_manifest_that_is_none(bundle: DecoderBundle, held: str) -> None:
    (bundle.path / "manifest.json").write_text(held)
    assert "manifest.json" in _refusal(bundle.path)


def test_no_bundle_there(tmp_path: Path) -> None:
    text = _refusal(tmp_path / "nowhere")
    assert "no decoder bundle at" in text
    assert "spikeloop export" in text


def _write_refusal(path: Path, fields: dict[str, Any], contents: dict[str, Any]) -> str:
    with pytest.raises(BundleError) as caught:
        write_bundle(path, fields, **contents)
    return str(caught.value)


def test_row_beyond_the_table(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    fields["units"][1]["row"] = 2
    text = _write_refusal(tmp_path / "b", fields, contents)
    assert "unit 'u2' has row 2, the table 2 rows" in text


def test_table_that_the_graph_does_not_take(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    contents["tables"]["more"] = np.zeros(3, np.float32)
    assert "the graph takes ['session', 'table']" in _write_refusal(
        tmp_path / "b", fields, contents
    )


@pytest.mark.parametrize(
    "table", [np.zeros((2, 8)), np.zeros((2, 9), np.float32), np.zeros(16, np.float32)]
)
def test_table_of_another_type_or_shape(tmp_path: Path, table: np.ndarray) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    contents["tables"]["table"] = table
    text = _write_refusal(tmp_path / "b", fields, contents)
    assert "`table` is float" in text
    assert "the graph takes float32 ['R', 8]" in text


def test_record_without_a_declared_output(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"], with_position=True)
    record = contents["parity"]
    contents["parity"] = replace(record, outputs={"velocity": record.outputs["velocity"]})
    text = _write_refusal(tmp_path / "b", fields, contents)
    assert "parity.safetensors: holds {'velocity': (20, 2)}" in text


def test_record_whose_lengths_differ(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    contents["parity"] = replace(contents["parity"], lead_s=np.zeros(3, np.float32))
    assert "lengths do not fit" in _write_refusal(tmp_path / "b", fields, contents)


def test_a_bundle_is_never_changed(bundle: DecoderBundle) -> None:
    fields, contents = tiny_parts(["u1"])
    before = (bundle.path / "manifest.json").read_bytes()
    assert "a bundle is never changed" in _write_refusal(bundle.path, fields, contents)
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_wrong_field_leaves_nothing(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1"])
    text = _write_refusal(tmp_path / "b", fields | {"hop_s": 0}, contents)
    assert "`hop_s`" in text
    assert list(tmp_path.iterdir()) == []


WRITE_WHERE_FILES_MAY_NOT_GROW = """
import resource, sys
from pathlib import Path
from export.bundle import write_bundle
from export.errors import BundleError
from tests.export.tiny_graph import tiny_parts

fields, contents = tiny_parts(["u1"])
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
try:
    write_bundle(Path(sys.argv[1]), fields, **contents)
except BundleError as error:
    sys.exit(str(error))
"""


def test_disk_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_WHERE_FILES_MAY_NOT_GROW, str(tmp_path / "b")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write the bundle" in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_fit_leave_nothing(tmp_path: Path) -> None:
    fields, contents = tiny_parts(["u1", "u2"])
    contents["tables"]["table"] = np.zeros((2, 9), np.float32)
    _write_refusal(tmp_path / "b", fields, contents)
    assert list(tmp_path.iterdir()) == []
