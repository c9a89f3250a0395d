"""Ed25519 keys that sign bundles: made, written and read."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from export.errors import SigningError
from streams.files import write_whole

SCHEME = "ed25519:"
FILE_AT_MOST = 4096
PUBLIC, OTHERS_WRITE = 0o644, stat.S_IWGRP | stat.S_IWOTH
_KEY_BYTES = 32


class SecretFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key file: `public` as configs name it, `secret` in base64."""

    public: str
    secret: str


def write_signing_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a pair, and write the secret file, readable by its owner alone, and the public one.

    Raises:
        SigningError: one of the files exists, or the disk refuses.
    """
    key = SigningKey.generate()
    public = SCHEME + base64.b64encode(bytes(key.verify_key)).decode()
    held = SecretFile(public, base64.b64encode(bytes(key)).decode())
    paths = folder / f"{name}.signing.json", folder / f"{name}.pub"
    for path in paths:
        if path.exists():
            raise SigningError(f"{path} exists; move it away to make a new key")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(paths[0], msgspec.json.encode(held) + b"\n", private=True)
        write_whole(paths[1], public + "\n", private=True)
        paths[1].chmod(PUBLIC)  # whatever the umask is: nobody else may change it
    except OSError as err:
        for path in paths:  # one alone would block the next try
            path.unlink(missing_ok=True)
        raise SigningError(f"cannot write keys to {folder}: {err.strerror}") from err
    return paths


def read_signing_key(path: Path) -> SigningKey:
    """Read a secret key.

    Raises:
        SigningError: missing, no key, or readable by others.
    """
    held = _read_small(path, secret=True)
    try:
        said = msgspec.json.decode(held, type=SecretFile)
        key = SigningKey(_decoded(said.secret))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, CryptoError) as err:
        raise SigningError(f"{path} holds no key that signs: {err}") from err
    if said.public != public_of(key):
        raise SigningError(f"{path}: its public key is not that of its secret key")
    return key


def public_of(key: SigningKey) -> str:
    """Return the public key as configs name it."""
    return SCHEME + base64.b64encode(bytes(key.verify_key)).decode()


def read_signers(named: Sequence[str]) -> tuple[str, ...]:
    """Return the public keys that a config names: themselves, or files that hold one each.

    Raises:
        SigningError: neither a key nor such a file, or one that others may change.
    """
    return tuple(map(_signer, named))


def _signer(named: str) -> str:
    said = named
    if not named.startswith(SCHEME):
        try:
            said = _read_small(Path(named)).decode().strip()
        except UnicodeDecodeError as err:
            raise SigningError(f"{named} holds no public key") from err
    verify_key(said, named)
    return said


def verify_key(said: str, where: str) -> VerifyKey:
    """Return a public key from its text; `where` it stands, for the error.

    Raises:
        SigningError: it is none.
    """
    try:
        if not said.startswith(SCHEME):
            raise ValueError("it begins otherwise")
        return VerifyKey(_decoded(said.removeprefix(SCHEME)))
    except (ValueError, CryptoError) as err:
        raise SigningError(
            f"{where}: no public key that signs ({err}); one is `{SCHEME}` and 44 letters, or the "
            "file NAME.pub that `spikeloop keys FOLDER --signing NAME` made"
        ) from err


def _decoded(text: str) -> bytes:
    try:
        held = base64.b64decode(text, validate=True)
    except binascii.Error as err:
        raise ValueError(f"no base64: {err}") from err
    if len(held) != _KEY_BYTES:
        raise ValueError(f"{len(held)} bytes where a key has {_KEY_BYTES}")
    return held


def _read_small(path: Path, *, secret: bool = False) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            said = os.fstat(file.fileno())
            if not stat.S_ISREG(said.st_mode) or said.st_size > FILE_AT_MOST:
                raise SigningError(f"{path} holds no key that signs")
            if not secret and said.st_mode & OTHERS_WRITE:  # whoever changes it may sign
                raise SigningError(f"{path} can be changed by others; chmod 644 it")
            if secret and said.st_mode & 0o077:
                raise SigningError(f"{path} can be read by others; chmod 600 it")
            return file.read(FILE_AT_MOST)
    except FileNotFoundError:
        raise SigningError(
            f"no key at {path}; `spikeloop keys FOLDER --signing NAME` makes one"
        ) from None
    except OSError as err:
        raise SigningError(f"cannot read {path}: {err.strerror}") from err
