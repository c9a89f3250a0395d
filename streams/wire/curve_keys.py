"""CURVE keys: who may read and steer a daemon that listens beyond loopback."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import msgspec

from streams.errors import CurveKeysError
from streams.files import written_whole
from streams.wire.clients import CLIENTS_FILE, Client, client_entry, read_clients
from streams.wire.roles import Role

FILE_AT_MOST = 4096
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
SERVER_FILE, CLIENT_FILE = "server.json", "client.json"
CLIENTS_HEAD = """\
# Who may connect, each with a role: watch, mark, operate or deploy (docs/wire.md). The daemon reads
# it again within seconds; whom you take out can do nothing from then on.
"""


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
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, keys in (
            (SERVER_FILE, CurveKeys(*server, client[0])),
            (CLIENT_FILE, CurveKeys(*client, server[0])),
        ):
            _write(folder / name, keys)
            made.append(folder / name)
    except FileExistsError as err:
        raise CurveKeysError(f"{err.filename} exists; move it away to make new keys") from err
    except OSError as err:
        for path in made:  # one side's alone are of no use, and would block the next try
            path.unlink()
        raise CurveKeysError(f"cannot write keys to {folder}: {err.strerror}") from err


def add_client(folder: Path, client: Client, secret: str) -> Path:
    """Write a client's file, and its line into the folder's list of those who may connect.

    A list that is begun names the client that the folder was made with, too: who could connect
    until now still can.

    Args:
        folder: made by `write_curve_keys`.
        client: the new one.
        secret: its secret key, Z85 text.

    Returns:
        The client's file.

    Raises:
        CurveKeysError: no keys there, a client of this name, or the disk refuses.
    """
    server = read_curve_keys(folder / SERVER_FILE)
    listed = folder / CLIENTS_FILE
    if listed.exists():
        held, text = read_clients(listed), listed.read_text()
    else:
        first = Client("client", Role.DEPLOY, server.other)
        held, text = (first,), CLIENTS_HEAD + client_entry(first)
    if client.name in (one.name for one in held):
        raise CurveKeysError(f"{listed} names {client.name!r} already; choose another name")
    path = folder / f"{client.name}.json"
    try:
        _write(path, CurveKeys(client.key, secret, server.public))
    except FileExistsError as err:
        raise CurveKeysError(f"{path} exists; move it away to make new keys") from err
    except OSError as err:
        raise CurveKeysError(f"cannot write keys to {folder}: {err.strerror}") from err
    try:
        with written_whole(listed) as beside:
            beside.touch(mode=0o600)
            beside.write_text(text + client_entry(client))
    except OSError as err:
        path.unlink()  # nobody could connect with it
        raise CurveKeysError(f"cannot write {listed}: {err.strerror}") from err
    return path


def read_curve_keys(path: Path) -> CurveKeys:
    """Read one side's file.

    Raises:
        CurveKeysError: missing, no keys, or readable by others.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise CurveKeysError(f"{path} can be read by others; chmod 600 it")
        if not path.is_file() or path.stat().st_size > FILE_AT_MOST:
            raise CurveKeysError(f"{path} holds no keys of spikeloop")
        keys = msgspec.json.decode(path.read_bytes(), type=CurveKeys)
    except FileNotFoundError:
        raise CurveKeysError(f"no keys at {path}; `spikeloop keys FOLDER` makes them") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as err:
        raise CurveKeysError(f"{path} holds no keys of spikeloop: {err}") from err
    for name in CurveKeys.__struct_fields__:
        if not _Z85.fullmatch(getattr(keys, name)):
            raise CurveKeysError(
                f"{path} holds no keys of spikeloop: {name!r} is not 40 characters of Z85"
            )
    return keys


def _write(path: Path, keys: CurveKeys) -> None:
    """Write beside, then link: a full disk must not leave an empty file that blocks the next try.

    Raises:
        OSError: the disk refuses; `FileExistsError`: there is one.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(keys) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)
        except FileExistsError as err:
            raise FileExistsError(err.errno, err.strerror, str(path)) from err
    finally:
        beside.unlink(missing_ok=True)
