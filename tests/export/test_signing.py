"""Signed bundles: which attack is refused by which check."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from export.bundle import SIGNATURE, open_bundle
from export.errors import BundleError, SigningError
from export.manifest import FileSum, id_of
from export.signing.keys import public_of, read_signers, read_signing_key, write_signing_key
from export.signing.signature import SIGNATURE_AT_MOST
from export.signing.signer import signer_of
from tests.export.tiny_graph import write_tiny_bundle


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    """A secret key's file, and its public key."""
    secret, public = write_signing_key(tmp_path / "keys", "lab")
    return secret, public.read_text().strip()


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, str]) -> Path:
    path = write_tiny_bundle(tmp_path / "tiny", ("u1", "u2")).path
    signer_of(keys[0])(path)
    return path


def test_a_signed_bundle_opens_with_and_without_the_demand(
    signed: Path, keys: tuple[Path, str]
) -> None:
    assert open_bundle(signed, [keys[1]]).manifest.id == open_bundle(signed).manifest.id


def flip(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(held)


def recompute(path: Path) -> None:
    """Make the manifest's checksums and id those of the files that lie there."""
    where = path / "manifest.json"
    content = json.loads(where.read_text())
    for name in content["files"]:
        held = (path / name).read_bytes()
        content["files"][name] = {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held)}
    content["id"] = id_of({k: FileSum(**v) for k, v in content["files"].items()})
    where.write_text(json.dumps(content, indent=1))


def flipped_weights(path: Path) -> None:
    flip(path / "weights.safetensors")


def flipped_graph(path: Path) -> None:
    flip(path / "graph.onnx")


def flipped_manifest(path: Path) -> None:
    flip(path / "manifest.json")


def recomputed(path: Path) -> None:
    flip(path / "weights.safetensors")
    recompute(path)


def external_data(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path / "graph.onnx")
    onnx.save(
        model, path / "graph.onnx", save_as_external_data=True, location="outside.bin",
        size_threshold=0,
    )  # fmt: skip
    recompute(path)


def own_operator(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path / "graph.onnx")
    model.graph.node[0].domain = "evil"
    model.opset_import.append(onnx.helper.make_opsetid("evil", 1))
    onnx.save(model, path / "graph.onnx")
    recompute(path)


def unsigned(path: Path) -> None:
    (path / SIGNATURE).unlink()


def flipped_signature(path: Path) -> None:
    where = path / SIGNATURE
    content = json.loads(where.read_text())
    made = content["signatures"][0]["signature"]
    content["signatures"][0]["signature"] = ("B" if made[0] != "B" else "C") + made[1:]
    where.write_text(json.dumps(content))


def statement_of_another(path: Path) -> None:
    """The signature stays, and what it is said to sign becomes what lies there."""
    recomputed(path)
    where = path / SIGNATURE
    content = json.loads(where.read_text())
    held = (path / "manifest.json").read_bytes()
    content["statement"]["manifest"] = hashlib.sha256(held).hexdigest()
    where.write_text(json.dumps(content))


def another_key(path: Path) -> None:
    (path / SIGNATURE).unlink()
    secret, _ = write_signing_key(path.parent / "stranger", "stranger")
    signer_of(secret)(path)


def key_renamed(path: Path) -> None:
    """A stranger's signature under the name of the lab's key."""
    lab = json.loads((path / SIGNATURE).read_text())["signatures"][0]["key"]
    another_key(path)
    where = path / SIGNATURE
    content = json.loads(where.read_text())
    content["signatures"][0]["key"] = lab
    where.write_text(json.dumps(content))


def engine_added(path: Path) -> None:
    (path / "engines" / "x").mkdir(parents=True)
    (path / "engines" / "x" / "tokens-000016.plan").write_bytes(b"engine")


def link_added(path: Path) -> None:
    (path / "engines").symlink_to(path.parent)


def pipe_added(path: Path) -> None:
    os.mkfifo(path / "pipe")


def signature_is_a_pipe(path: Path) -> None:
    (path / SIGNATURE).unlink()
    os.mkfifo(path / SIGNATURE)


def signature_is_huge(path: Path) -> None:
    os.truncate(path / SIGNATURE, SIGNATURE_AT_MOST + 1)


def signature_is_nested(path: Path) -> None:
    (path / SIGNATURE).write_text("[" * 100_000)


ATTACKS: list[tuple[Callable[[Path], None], str]] = [
    (flipped_weights, "checksum differs"),
    (flipped_graph, "checksum differs"),
    (flipped_manifest, "not the manifest that was signed"),
    (recomputed, "not the manifest that was signed"),
    (external_data, "not the manifest that was signed"),
    (own_operator, "not the manifest that was signed"),
    (unsigned, "is not signed"),
    (flipped_signature, "does not hold"),
    (statement_of_another, "does not hold"),
    (another_key, "is signed by ed25519:"),
    (key_renamed, "does not hold"),
    (engine_added, "not signed; an engine"),
    (link_added, "holds no links"),
    (pipe_added, "no regular file"),
    (signature_is_a_pipe, "no regular file"),
    (signature_is_huge, "are no signature"),
    (signature_is_nested, "no signature can be read"),
]


@pytest.mark.parametrize(("attack", "told"), ATTACKS, ids=lambda one: getattr(one, "__name__", ""))
def test_attacks_are_refused_by_the_check(
    signed: Path, keys: tuple[Path, str], attack: Callable[[Path], None], told: str
) -> None:
    attack(signed)
    with pytest.raises(BundleError, match=told):
        open_bundle(signed, [keys[1]])


def test_engines_that_were_signed_may_be_there(signed: Path, keys: tuple[Path, str]) -> None:
    engine_added(signed)
    signer_of(keys[0])(signed)
    open_bundle(signed, [keys[1]])
    flip(signed / "engines" / "x" / "tokens-000016.plan")
    with pytest.raises(BundleError, match="not signed"):
        open_bundle(signed, [keys[1]])


def test_one_of_several_keys_suffices(signed: Path, keys: tuple[Path, str], tmp_path: Path) -> None:
    second, public = write_signing_key(tmp_path / "keys", "clinic")
    signer_of(second)(signed)
    clinic = public.read_text().strip()
    for signers in ([keys[1]], [clinic], [keys[1], clinic]):
        open_bundle(signed, signers)
    assert len(json.loads((signed / SIGNATURE).read_text())["signatures"]) == 2
    signer_of(second)(signed)  # again: it replaces its own
    assert len(json.loads((signed / SIGNATURE).read_text())["signatures"]) == 2


def test_a_copy_is_as_good(signed: Path, keys: tuple[Path, str], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(signed, tmp_path / "copy"))
    assert open_bundle(copy, [keys[1]]).manifest == open_bundle(signed, [keys[1]]).manifest


def test_the_secret_key_is_its_owners_alone(keys: tuple[Path, str]) -> None:
    path = keys[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_of(read_signing_key(path)) == keys[1]
    path.chmod(0o640)
    with pytest.raises(SigningError, match="chmod 600"):
        read_signing_key(path)


def test_keys_are_not_overwritten(keys: tuple[Path, str]) -> None:
    before = {path: path.read_bytes() for path in keys[0].parent.iterdir()}
    with pytest.raises(SigningError, match="exists"):
        write_signing_key(keys[0].parent, "lab")
    assert {path: path.read_bytes() for path in keys[0].parent.iterdir()} == before


@pytest.mark.parametrize("text", ["", "{}", '{"public":"x","secret":"x"}', "[" * 4000, "\udcff"])
def test_what_is_no_secret_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SigningError, match="holds no key that signs"):
        read_signing_key(path)


def test_a_public_key_that_is_not_the_secret_ones(keys: tuple[Path, str]) -> None:
    held = json.loads(keys[0].read_text())
    keys[0].write_text(json.dumps(held | {"public": "ed25519:x"}))
    with pytest.raises(SigningError, match="not that of its secret key"):
        read_signing_key(keys[0])


def test_signers_are_named_by_key_or_by_file(keys: tuple[Path, str]) -> None:
    public = keys[0].parent / "lab.pub"
    assert read_signers([keys[1], str(public)]) == (keys[1], keys[1])


@pytest.mark.parametrize(
    "named", ["ed25519:", "ed25519:AAAA", "ed25519:!", "nobody.pub", "/dev/zero"]
)
def test_what_names_no_signer(named: str) -> None:
    with pytest.raises(SigningError, match=r"no public key|no key at|holds no key"):
        read_signers([named])


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_a_public_key_that_others_may_change_signs_for_nobody(
    keys: tuple[Path, str], mode: int
) -> None:
    public = keys[0].with_name("lab.pub")
    assert read_signers([str(public)]) == (keys[1],)
    public.chmod(mode)
    with pytest.raises(SigningError, match="can be changed by others; chmod 644"):
        read_signers([str(public)])


def test_the_public_key_that_is_made_is_its_owners_to_change(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        _, public = write_signing_key(tmp_path / "keys", "lab")
    finally:
        os.umask(before)
    assert public.stat().st_mode & 0o777 == 0o644
