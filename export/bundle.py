"""A decoder on disk: a directory that is written whole or not at all, and verified when opened."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from export.errors import BundleError, ExportError
from export.graph_files import require_whole
from export.manifest import (
    FORMAT,
    FileSum,
    Graph,
    Manifest,
    Tensor,
    id_of,
    parse_manifest,
    seal_of,
)
from export.parity import ParityRecord, record_from_tensors
from export.regular_files import damaged, opened
from streams.files import written_whole

if TYPE_CHECKING:
    from export.signing.signature import Statement

__all__ = ["BundleError", "DecoderBundle", "ExportError", "Manifest", "open_bundle", "write_bundle"]

MANIFEST, GRAPH, TABLES = "manifest.json", "graph.onnx", "tables.safetensors"
WEIGHTS, PARITY = "weights.safetensors", "parity.safetensors"
SIGNATURE = "signature.json"
"""Beside the manifest, not in it: a bundle is signed after it was made, perhaps by several."""
MANIFEST_BYTES_AT_MOST = 4 * 2**20
"""Reading it holds the interpreter's lock: 50 ms at this size; 10,000 units take 1 MB."""
BUNDLE_BYTES_AT_MOST, FILES_AT_MOST = 2**31, 1000
REQUIRED = (GRAPH, TABLES, WEIGHTS, PARITY)


@dataclass(frozen=True, slots=True)
class DecoderBundle:
    """A verified bundle.

    Attributes:
        path: the directory.
        manifest: what it says of itself.
        tables: the graph inputs that belong to this decoder: `table` (R, D), `session` (S,), ...
        row_of_key: row of the table of each unit key.
    """

    path: Path
    manifest: Manifest
    tables: Mapping[str, np.ndarray]
    row_of_key: Mapping[str, int]

    @property
    def graph_path(self) -> Path:
        """The ONNX graph."""
        return self.path / GRAPH

    @property
    def graph_sha256(self) -> str:
        """Checksum of the graph: bundles that share it differ in their tables only."""
        return self.manifest.files[GRAPH].sha256

    def parity(self) -> ParityRecord:
        """The recorded beats.

        Raises:
            BundleError: the record does not fit the manifest.
        """
        where = self.path / PARITY
        return _verified_record(where, self.manifest, _tensors(where))

    def weights(self) -> dict[str, np.ndarray]:
        """The network's parameters, for training on and for the torch backend."""
        return _tensors(self.path / WEIGHTS)


def decoder_weights(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of a bundle's weights those of the decoder alone, by their names in it."""
    prefix = "decoder."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def open_bundle(path: Path, signers: Sequence[str] = ()) -> DecoderBundle:
    """Open a bundle and verify every file of it.

    Args:
        path: the directory.
        signers: public keys, one of which must have signed it; () where none needs to.

    Raises:
        BundleError: a file is missing, truncated or changed; the manifest has an unknown version
            or field; unit map, tables and graph do not fit together; a demanded signature is
            missing or does not hold.
    """
    path = Path(path)
    held = _read_manifest(path)
    signed = _signed(path, held, signers) if signers else None
    content = _parsed(path, held)
    manifest = parse_manifest(content, str(path / MANIFEST))
    if signed is not None:
        signed.require_others(path, manifest.files)
    _verify_files(path, manifest)
    require_whole(path / GRAPH)
    tables = _tensors(path / TABLES)
    if _seal_in(path / TABLES) != seal_of(content):
        raise _changed(path / MANIFEST)
    _verify_tables(path / TABLES, manifest, tables)
    row_of_key = {unit.key: unit.row for unit in manifest.units}
    return DecoderBundle(path, manifest, tables, row_of_key)


def _read_manifest(path: Path) -> bytes:
    where = path / MANIFEST
    try:
        with opened(where) as file:
            held = file.read(MANIFEST_BYTES_AT_MOST + 1)
    except OSError as error:
        raise BundleError(
            f"no decoder bundle at {path}: {MANIFEST}: {error.strerror}; "
            "name the directory that `spikeloop export` wrote"
        ) from error
    if len(held) > MANIFEST_BYTES_AT_MOST:
        raise BundleError(f"{where}: over {MANIFEST_BYTES_AT_MOST} bytes are no manifest")
    return held


def _signed(path: Path, manifest: bytes, signers: Sequence[str]) -> Statement:
    """Return what was signed, the manifest among it; nothing of the bundle is parsed before."""
    from export.signing.signature import verified_statement  # costs 30 ms, which few need

    statement = verified_statement(path, signers)
    statement.require_manifest(path, manifest)
    return statement


def _parsed(path: Path, held: bytes) -> dict[str, Any]:
    where = path / MANIFEST
    try:
        content = json.loads(held)
    except (ValueError, RecursionError) as error:
        raise damaged(where, f"not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise damaged(where, "holds no fields")
    return content


def _verify_files(path: Path, manifest: Manifest) -> None:
    absent = [name for name in REQUIRED if name not in manifest.files]
    if absent:
        raise _unfit(path / MANIFEST, f"`files` lacks {', '.join(absent)}")
    n_bytes = sum(declared.bytes for declared in manifest.files.values())
    if n_bytes > BUNDLE_BYTES_AT_MOST or len(manifest.files) > FILES_AT_MOST:
        raise BundleError(
            f"{path / MANIFEST}: {len(manifest.files)} files of {n_bytes} bytes are no bundle; "
            f"one has at most {FILES_AT_MOST} of {BUNDLE_BYTES_AT_MOST}"
        )
    for name, declared in manifest.files.items():
        _verify_file(path / name, declared)
    if manifest.id != id_of(manifest.files):
        raise damaged(path / MANIFEST, "`id` is not that of its files")


def _verify_file(where: Path, declared: FileSum) -> None:
    try:
        with opened(where) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes != declared.bytes:
                raise damaged(
                    where, f"{n_bytes} bytes where the manifest declares {declared.bytes}"
                )
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged(where, error.strerror) from error
    if found != declared.sha256:
        raise _changed(where)


def _changed(where: Path) -> BundleError:
    return damaged(where, "its content is not what was exported (checksum differs)")


def _unfit(where: Path | str, why: str) -> BundleError:
    return BundleError(f"{where}: {why}; export the bundle again")


def _tensors(where: Path) -> dict[str, np.ndarray]:
    try:
        tensors: dict[str, np.ndarray] = load(where.read_bytes())
    except (OSError, SafetensorError) as error:
        raise damaged(where, error) from error
    return tensors


def _seal_in(where: Path) -> str | None:
    """The manifest's seal, from the header of a safetensors file."""
    with where.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    seal: str | None = header.get("__metadata__", {}).get("manifest")
    return seal


def _verify_tables(where: Path, manifest: Manifest, tables: Mapping[str, np.ndarray]) -> None:
    declared = {tensor.name: tensor for tensor in manifest.graph.tables}
    if declared.keys() != tables.keys():
        raise _unfit(where, f"holds {sorted(tables)}, the graph takes {sorted(declared)}")
    for name, tensor in declared.items():
        require_fit(tensor, tables[name], where)
    n_rows = min((len(tables[n]) for n, t in declared.items() if is_per_unit(t)), default=0)
    beyond = [unit for unit in manifest.units if unit.row >= n_rows]
    if beyond:
        key, row = beyond[0].key, beyond[0].row
        raise _unfit(where, f"unit {key!r} has row {row}, the table {n_rows} rows")


def _verified_record(
    where: Path, manifest: Manifest, tensors: Mapping[str, np.ndarray]
) -> ParityRecord:
    record = record_from_tensors(tensors, str(where))
    declared = {output.name: (len(record), output.dims) for output in manifest.outputs}
    held = {name: values.shape for name, values in record.outputs.items()}
    if held != declared or len(record) != manifest.parity.n_beats:
        raise _unfit(where, f"holds {held}, the manifest declares {declared}")
    return record


def is_per_unit(tensor: Tensor) -> bool:
    """Return True if a table has a row for each unit: then its length varies."""
    return isinstance(tensor.shape[0], str)


def require_fit(tensor: Tensor, values: np.ndarray, where: Path | str) -> None:
    """Refuse an array that the graph cannot take for an input.

    Raises:
        BundleError: type or shape differs.
    """
    fits = len(values.shape) == len(tensor.shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(tensor.shape, values.shape, strict=True)
    )
    if values.dtype.name != tensor.dtype or not fits:
        held = f"{values.dtype.name} {list(values.shape)}"
        takes = f"{tensor.dtype} {list(tensor.shape)}"
        raise _unfit(where, f"`{tensor.name}` is {held}, the graph takes {takes}")


def tables_for(signature: Graph, tables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies of the tables that a graph takes.

    Raises:
        BundleError: one is missing, or has another shape or type than the graph takes.
    """
    for tensor in signature.tables:
        if tensor.name not in tables:
            raise BundleError(f"the graph takes a table {tensor.name!r}, none was given")
        require_fit(tensor, tables[tensor.name], "the new tables")
    return {tensor.name: np.array(tables[tensor.name], order="C") for tensor in signature.tables}


def write_bundle(
    path: Path,
    fields: Mapping[str, Any],
    *,
    graph: bytes,
    tables: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    parity: ParityRecord,
    reports: Mapping[str, bytes] | None = None,
) -> DecoderBundle:
    """Write a bundle whole, or not at all, and open it.

    The same arguments give the same `id` on every day and machine.

    Args:
        path: a directory that does not exist yet.
        fields: the manifest's fields; `format`, `id`, `files`, `created_utc`, `code_version` and
            `parity.n_beats` are filled in here.
        graph: the ONNX file.
        tables: the graph inputs that belong to the decoder.
        weights: the network's parameters.
        parity: recorded beats.
        reports: further files by their path under `report/`.

    Raises:
        BundleError: `path` exists, a field is wrong, the parts do not fit together, or the disk
            refuses.
    """
    path = Path(path)
    content = _complete(fields, parity)
    contents = {
        GRAPH: graph,
        TABLES: save(_contiguous(tables), {"manifest": seal_of(content)}),
        WEIGHTS: save(_contiguous(weights)),
        PARITY: save(parity.to_tensors()),
    } | {f"report/{name}": held for name, held in (reports or {}).items()}
    files = {
        name: FileSum(sha256=hashlib.sha256(held).hexdigest(), bytes=len(held))
        for name, held in contents.items()
    }
    content |= {"id": id_of(files), "files": {k: v.model_dump() for k, v in files.items()}}
    manifest = parse_manifest(content, str(path / MANIFEST))
    _verify_tables(path / TABLES, manifest, tables)
    _verified_record(path / PARITY, manifest, parity.to_tensors())
    contents[MANIFEST] = (json.dumps(content, indent=1) + "\n").encode()
    _place(path, contents)
    return open_bundle(path)


def _complete(fields: Mapping[str, Any], parity: ParityRecord) -> dict[str, Any]:
    """The manifest's content as it will be read back, without `id` and `files`."""
    defaults: dict[str, Any] = {
        "format": FORMAT,
        "parent_id": None,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": importlib.metadata.version("spikeloop"),
        "training": {},
        "verification": None,
    }
    content = defaults | {k: v for k, v in fields.items() if k not in ("id", "files")}
    content["parity"] = {**content.get("parity", {}), "n_beats": len(parity)}
    probe = content | {"id": "0" * 64, "files": {}}
    parsed = parse_manifest(probe, f"{MANIFEST} to be written").model_dump(mode="json")
    return {name: value for name, value in parsed.items() if name not in ("id", "files")}


def _contiguous(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _place(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write into a directory beside, flush it to the disk, and give it its name."""
    if path.exists():
        raise BundleError(f"{path} exists, and a bundle is never changed; choose another name")
    try:
        with written_whole(path) as beside:
            for name, held in contents.items():
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                (beside / name).write_bytes(held)
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle {path}: {error.strerror}; nothing was left behind"
        ) from error
