"""CURVE keys: who may read and steer a daemon that listens beyond loopback."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from streams.errors import CurveKeysError

SERVER_FILE, CLIENT_FILE = "server.json", "client.json"


class CurveKeys(msgspec.Struct, frozen=True):
    """One side's own pair, and the other side's public key (Z85 text)."""

    public: str
    secret: str
    other: str


def write_curve_keys(folder: Path, server: tuple[str, str], client: tuple[str, str]) -> None:
    """Write both sides' files, readable by their owner alone; nothing is overwritten.

    Args:
        folder: where to; made if needed.
        server: (public, secret), the daemon's.
        client: (public, secret), for those who may connect.

    Raises:
        CurveKeysError: there are keys already, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / SERVER_FILE, CurveKeys(*server, client[0]))
        _write(folder / CLIENT_FILE, CurveKeys(*client, server[0]))
    except FileExistsError as err:
        raise CurveKeysError(f"{err.filename} exists; move it away to make new keys") from err
    except OSError as err:
        raise CurveKeysError(f"cannot write keys to {folder}: {err.strerror}") from err


def read_curve_keys(path: Path) -> CurveKeys:
    """Read one side's file.

    Raises:
        CurveKeysError: missing, no keys, or readable by others.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise CurveKeysError(f"{path} can be read by others; chmod 600 it")
        return msgspec.json.decode(path.read_bytes(), type=CurveKeys)
    except FileNotFoundError:
        raise CurveKeysError(f"no keys at {path}; `spikeloop keys FOLDER` makes them") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as err:
        raise CurveKeysError(f"{path} holds no keys of spikeloop: {err}") from err


def _write(path: Path, keys: CurveKeys) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(keys) + b"\n")
