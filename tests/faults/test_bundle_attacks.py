"""Bundles made to harm: each is refused in bounded time and memory, with a sentence."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from export.backends.opening import open_backend
from export.bundle import (
    FILES_AT_MOST,
    MANIFEST_BYTES_AT_MOST,
    DecoderBundle,
    open_bundle,
    write_bundle,
)
from export.errors import BundleError, ExportError
from service.deploy.transfer import WHOLE_KEPT, TransferError, Transfers
from tests.export.test_signing import own_operator, recompute
from tests.export.tiny_graph import tiny_parts, write_tiny_bundle

FILES = ("manifest.json", "graph.onnx", "tables.safetensors")
WITHIN_S = 20.0


@pytest.fixture
def bundle(tmp_path: Path) -> DecoderBundle:
    return write_tiny_bundle(tmp_path / "tiny", ("u1", "u2"))


def refusal_in_process(path: Path) -> str:
    """Open it in a process with 2 GiB of memory; the error, in time."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31));"
        "from pathlib import Path; from export.bundle import open_bundle\n"
        "try: open_bundle(Path(sys.argv[1]))\n"
        "except Exception as err: print(type(err).__name__, err)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=True)
    return done.stdout


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file(bundle: DecoderBundle, name: str) -> None:
    (bundle.path / name).unlink()
    os.mkfifo(bundle.path / name)
    told = refusal_in_process(bundle.path)
    assert told.startswith("BundleError")
    assert "no regular file" in told


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_a_file_without_end(bundle: DecoderBundle, name: str) -> None:
    (bundle.path / name).unlink()
    (bundle.path / name).symlink_to("/dev/zero")
    told = refusal_in_process(bundle.path)
    assert told.startswith("BundleError")
    assert "no regular file" in told


def _elsewhere(tensor: TensorProto, location: str) -> None:
    set_external_data(tensor, location, 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")


@pytest.mark.parametrize("place", ["initializer", "constant", "function"])
@pytest.mark.parametrize("location", ["outside.bin", "../outside.bin", "/etc/hostname"])
def test_values_of_a_graph_that_lie_in_another_file(
    bundle: DecoderBundle, place: str, location: str
) -> None:
    model = onnx.load(bundle.graph_path)
    tensor = next(one for one in model.graph.initializer if one.name == "w_in")
    _elsewhere(tensor, location)
    if place != "initializer":
        model.graph.initializer.remove(tensor)
        node = onnx.helper.make_node("Constant", [], ["w_in"], value=tensor)
        if place == "function":
            body = onnx.helper.make_function("own", "f", [], ["w_in"], [node], [])
            model.functions.append(body)
            node = onnx.helper.make_node("f", [], ["w_in"], domain="own")
        model.graph.node.insert(0, node)
    bundle.graph_path.write_bytes(model.SerializeToString())
    recompute(bundle.path)
    with pytest.raises(BundleError, match="lie in another file"):
        open_bundle(bundle.path)


def test_an_operator_of_its_own(bundle: DecoderBundle) -> None:
    own_operator(bundle.path)
    opened = open_bundle(bundle.path)
    for name in ("onnxruntime-cpu", "numba-cpu", "torch-cpu"):
        with pytest.raises(ExportError):
            open_backend(opened, name)


@pytest.mark.parametrize(
    "graph", [b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"\x3b", b"", b"\x80" * 20]
)
def test_bytes_that_are_no_graph(bundle: DecoderBundle, graph: bytes) -> None:
    bundle.graph_path.write_bytes(graph)
    recompute(bundle.path)
    with pytest.raises(BundleError, match="no ONNX graph"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("hidden", [7, 5, 13])
def test_a_number_beyond_32_bits_hides_no_values_in_another_file(
    bundle: DecoderBundle, hidden: int
) -> None:
    held = _field(1, b"location") + _field(2, b"outside.bin")
    for number in (13, 5, 7):  # libraries read the lower half: the tensor's, the graph's
        held = _field(number | 2**29 * (number == hidden), held)
    bundle.graph_path.write_bytes(held)
    recompute(bundle.path)
    with pytest.raises(BundleError, match="no ONNX graph"):
        open_bundle(bundle.path)


def test_a_graph_in_a_graph_without_end(bundle: DecoderBundle) -> None:
    held = b""
    for _ in range(200):  # a graph, its node, its attribute, which is a graph
        for number in (6, 5, 1):
            held = _field(number, held)
    held = _field(7, held)
    bundle.graph_path.write_bytes(held)
    recompute(bundle.path)
    with pytest.raises(BundleError, match="nested too deep"):
        open_bundle(bundle.path)


def _field(number: int, held: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(held)) + held


def _varint(n: int) -> bytes:
    return bytes([n & 127 | 128]) + _varint(n >> 7) if n > 127 else bytes([n])


def test_a_manifest_of_many_megabytes(bundle: DecoderBundle) -> None:
    with (bundle.path / "manifest.json").open("ab") as file:
        file.truncate(MANIFEST_BYTES_AT_MOST + 1)
    with pytest.raises(BundleError, match="no manifest"):
        open_bundle(bundle.path)


def test_a_manifest_that_is_nested_without_end(bundle: DecoderBundle) -> None:
    (bundle.path / "manifest.json").write_text("[" * 10**6)
    with pytest.raises(BundleError, match="not readable as JSON"):
        open_bundle(bundle.path)


def test_more_bytes_or_files_than_any_bundle_has(bundle: DecoderBundle) -> None:
    path = bundle.path / "manifest.json"
    content = json.loads(path.read_text())
    one = {"sha256": "0" * 64, "bytes": 2**40}
    path.write_text(json.dumps(content | {"files": content["files"] | {"report/a": one}}))
    with pytest.raises(BundleError, match="are no bundle"):
        open_bundle(bundle.path)
    many = {f"report/{i}": one | {"bytes": 0} for i in range(FILES_AT_MOST + 1)}
    path.write_text(json.dumps(content | {"files": content["files"] | many}))
    with pytest.raises(BundleError, match="are no bundle"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("field", ["atol_fp32", "atol_reduced"])
@pytest.mark.parametrize("atol", [1e300, float("inf"), 40.0])
def test_a_bound_of_its_own_that_anything_would_pass(
    tmp_path: Path, field: str, atol: float
) -> None:
    fields, contents = tiny_parts(("u1", "u2"))
    with pytest.raises(BundleError, match=field):
        write_bundle(tmp_path / "b", fields | {"parity": {field: atol}}, **contents)


def test_buckets_that_no_memory_holds(tmp_path: Path) -> None:
    fields, contents = tiny_parts(("u1", "u2"))
    with pytest.raises(BundleError, match="token_buckets"):
        write_bundle(tmp_path / "b", fields | {"token_buckets": [64, 10**12]}, **contents)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a\0b", "report/../../x", "x\n", "", ".", "a" * 300, "report/a/b"]
)
def test_a_transfer_of_a_name_that_is_not_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransferError, match="no file of a bundle"):
        Transfers(tmp_path / "incoming").begin({name: 1})
    assert not (tmp_path / "incoming").exists()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a\0b", "graph.onnx\n", ""])
def test_a_chunk_that_was_not_announced(tmp_path: Path, name: str) -> None:
    transfers = Transfers(tmp_path / "incoming")
    transfer = transfers.begin({"graph.onnx": 4})
    with pytest.raises(TransferError, match="was not announced"):
        transfers.chunk(transfer, name, 0, "0" * 64, b"")
    assert not list((tmp_path / "incoming").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["incoming"]


def test_a_transfer_of_more_files_than_a_bundle_has(tmp_path: Path) -> None:
    files = {f"f{i}": 0 for i in range(FILES_AT_MOST + 1)}
    with pytest.raises(TransferError, match="files are no bundle"):
        Transfers(tmp_path).begin(files)


def test_what_a_killed_daemon_received_in_part_is_removed_at_the_next_start(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from service.deploy.transfer import Transfers\n"
        "transfers = Transfers(Path(sys.argv[1]))\n"
        "transfers.finish(transfers.begin({}))\n"
        "transfers.begin({'graph.onnx': 4}); os.kill(os.getpid(), 9)"
    )
    root = tmp_path / "incoming"
    subprocess.run([sys.executable, "-c", code, str(root)], timeout=WITHIN_S, check=False)
    (root / "mine.part").mkdir()
    assert len(list(root.iterdir())) == 3
    first = Transfers(root)
    whole = sorted(path.name for path in root.iterdir() if path.name != "mine.part")
    assert len(whole) == 1
    assert not whole[0].endswith(".part")
    first.begin({"graph.onnx": 4})
    Transfers(root)  # another daemon's: what is on its way stays
    assert len(list(root.iterdir())) == 3


def test_of_whole_bundles_of_earlier_runs_the_last_and_the_one_in_service_stay(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from service.deploy.transfer import Transfers\n"
        "used = []; transfers = Transfers(Path(sys.argv[1]), in_use=lambda: used)\n"
        "for i in range(7):\n"
        "    path = transfers.finish(transfers.begin({'report/a': 0})); used = used or [path]\n"
        "    os.utime(path, (i, i)); print(path, flush=True)\n"
        "sys.stdin.read(1); os.kill(os.getpid(), 9)"
    )
    root = tmp_path / "incoming"
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as run:
        assert run.stdout is not None
        whole = [Path(run.stdout.readline().strip()) for _ in range(7)]
        (root / "mine").mkdir()
        Transfers(root)  # another daemon's, while the first one lives: it may be in service there
        assert [path.is_dir() for path in whole] == [True, False, False] + [True] * WHOLE_KEPT
        run.communicate("k", timeout=WITHIN_S)
    os.symlink(whole[0], tmp_path / "current")
    Transfers(root, tmp_path / "current")
    assert [path.is_dir() for path in whole] == [True, False, False] + [True] * WHOLE_KEPT
    Transfers(root)
    assert [path.is_dir() for path in whole] == [False] * 3 + [True] * WHOLE_KEPT
    assert (root / "mine").is_dir()


def test_bundles_without_end_keep_no_descriptors_and_fill_no_disk(tmp_path: Path) -> None:
    transfers, n_open = Transfers(tmp_path), len(os.listdir("/proc/self/fd"))
    for _ in range(10 * WHOLE_KEPT):
        transfers.finish(transfers.begin({"report/a": 0}))
    assert len(os.listdir("/proc/self/fd")) <= n_open + WHOLE_KEPT
    assert len(list(tmp_path.iterdir())) == WHOLE_KEPT


def test_a_disk_without_locks_keeps_no_descriptor_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    transfers, n_open = Transfers(tmp_path), len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(TransferError, match="No locks available"):
        transfers.begin({"graph.onnx": 1})
    assert len(os.listdir("/proc/self/fd")) == n_open
    assert list(tmp_path.iterdir()) == []
