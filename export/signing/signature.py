"""The signature of a bundle (Ed25519), in a file beside its manifest.

What is signed is the manifest, which holds the checksums of the bundle's files, and the checksum of
every other file in its folder, such as engines that were built later. Without the secret key nobody
can make a bundle that a daemon takes which demands a signature, whatever checksums it has.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey

from export.bundle import MANIFEST, SIGNATURE
from export.errors import BundleError, SigningError
from export.regular_files import opened
from export.signing.keys import public_of, verify_key
from streams.files import write_whole

SIGNATURE_AT_MOST, ENTRIES_AT_MOST = 2**20, 2000
_CONTEXT = b"spikeloop bundle signature 1\n"
"""Signed with it, so that no other text that a key signs can be taken for a bundle's."""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed statement: checksums of the manifest, and of files that it does not list."""

    manifest: str
    others: dict[str, str]

    @property
    def signed_bytes(self) -> bytes:
        """The bytes under the signature."""
        return _CONTEXT + msgspec.json.encode(self, order="sorted")

    def require_manifest(self, path: Path, manifest: bytes) -> None:
        """Refuse a manifest that is not the signed one.

        Raises:
            BundleError: it is another.
        """
        if hashlib.sha256(manifest).hexdigest() != self.manifest:
            raise BundleError(
                f"{path / MANIFEST}: not the manifest that was signed, whatever its checksums say; "
                "copy the bundle again from its source, or sign it again"
            )

    def require_others(self, path: Path, listed: Collection[str]) -> None:
        """Refuse files in the folder that neither the manifest nor the signature lists.

        Raises:
            BundleError: there is one, or it was changed.
        """
        for name, checksum in _others(path, listed):
            if self.others.get(name) != checksum:
                raise BundleError(
                    f"{path / name}: not signed; an engine that was built later, for example, "
                    "needs a new signature: `spikeloop sign`"
                )


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature: by which public key, and the signature in base64."""

    key: str
    signature: str


class SignatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file in the bundle."""

    statement: Statement
    signatures: tuple[Signature, ...]


def sign_bundle(path: Path, listed: Collection[str], key: SigningKey) -> None:
    """Write a bundle's signature; those of other keys over the same content stay.

    Args:
        path: the bundle's directory.
        listed: files that its manifest lists.
        key: to sign with.

    Raises:
        SigningError: the disk refuses.
        BundleError: a file of the bundle is none that can be signed.
    """
    try:
        with opened(path / MANIFEST) as file:
            manifest = hashlib.file_digest(file, "sha256").hexdigest()
        statement = Statement(manifest, dict(_others(path, listed)))
        made = base64.b64encode(key.sign(statement.signed_bytes).signature).decode()
        public = public_of(key)
        kept = [one for one in _signatures_over(path, statement) if one.key != public]
        file_ = SignatureFile(statement, (*kept, Signature(public, made)))
        write_whole(path / SIGNATURE, msgspec.json.format(msgspec.json.encode(file_)) + b"\n")
    except OSError as err:
        raise SigningError(f"cannot sign {path}: {err.strerror}") from err


def _signatures_over(path: Path, statement: Statement) -> tuple[Signature, ...]:
    if not (path / SIGNATURE).exists():
        return ()
    held = _read_signature(path)
    return held.signatures if held.statement == statement else ()


def verified_statement(path: Path, signers: Sequence[str]) -> Statement:
    """Return what one of the signers signed of a bundle.

    Args:
        path: the bundle's directory.
        signers: public keys, at least one.

    Raises:
        BundleError: no signature, none of theirs, or one that does not hold.
    """
    if not os.path.lexists(path / SIGNATURE):
        raise BundleError(
            f"{path} is not signed, and `require_signature` under [decoder] demands it: "
            f"`spikeloop sign {path} --key FILE`, with the key of {' or '.join(signers)}"
        )
    held = _read_signature(path)
    ours = [one for one in held.signatures if one.key in signers]
    if not ours:
        found = ", ".join(one.key for one in held.signatures[:3]) or "nobody"
        raise BundleError(
            f"{path} is signed by {found}, and `require_signature` under [decoder] demands "
            f"{' or '.join(signers)}"
        )
    for one in ours:
        try:
            verify_key(one.key, one.key).verify(
                held.statement.signed_bytes, base64.b64decode(one.signature, validate=True)
            )
        except (CryptoError, ValueError) as err:
            raise BundleError(
                f"{path / SIGNATURE}: the signature by {one.key} does not hold: what it signs was "
                "changed; copy the bundle again from its source"
            ) from err
    return held.statement


def _read_signature(path: Path) -> SignatureFile:
    where = path / SIGNATURE
    try:
        with opened(where) as file:
            content = file.read(SIGNATURE_AT_MOST + 1)
        if len(content) > SIGNATURE_AT_MOST:
            raise BundleError(f"{where}: over {SIGNATURE_AT_MOST} bytes are no signature")
        return msgspec.json.decode(content, type=SignatureFile)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise BundleError(f"{where}: no signature can be read: {err}; sign it again") from err


def _others(path: Path, listed: Collection[str]) -> Iterator[tuple[str, str]]:
    """Name each file in the folder that the manifest does not list, and its checksum.

    Raises:
        BundleError: there are too many, or a link: what it leads to could change unseen.
    """
    n = 0
    for folder, folders, names in os.walk(path):
        for name in sorted([*folders, *names]):
            where = Path(folder) / name
            relative = where.relative_to(path).as_posix()
            n += 1
            if n > ENTRIES_AT_MOST or where.is_symlink():
                raise BundleError(f"{where}: a signed bundle holds no links and few files")
            if name in folders or relative in listed or relative in (MANIFEST, SIGNATURE):
                continue
            try:
                with opened(where) as file:
                    yield relative, hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as err:
                raise BundleError(f"{where}: {err.strerror}") from err
