"""The list of clients that may connect with CURVE keys, and the commands of each."""

from __future__ import annotations

import os
import stat
import threading
import tomllib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from streams.config_file import Section, check_config
from streams.errors import CurveKeysError
from streams.wire.roles import Role, RoleName

CLIENTS_FILE = "clients.toml"
FILE_AT_MOST, CLIENTS_AT_MOST = 2**18, 1000
STRANGERS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Client:
    """One who may connect; `key` is the public key as Z85 text, "" where there are no keys."""

    name: str
    role: Role
    key: str = ""


ANYBODY = Client("anybody", Role.DEPLOY)
"""Who reaches a daemon without keys, which listens on loopback only."""


class ClientEntry(Section):
    """A `[[client]]` of the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
    role: RoleName
    key: str = Field(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")


class ClientsFile(Section):
    """The whole file."""

    client: tuple[ClientEntry, ...] = Field((), strict=False, max_length=CLIENTS_AT_MOST)

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        for what in ("name", "key"):
            found = [getattr(one, what) for one in self.client]
            twice = next((value for value in found if found.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"the {what} {twice!r} stands there twice")
        return self


def read_clients(path: Path) -> tuple[Client, ...]:
    """Read the list of those who may connect.

    Raises:
        CurveKeysError: missing, writable by others, no TOML, or with a wrong entry.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            said = os.fstat(file.fileno())
            if not stat.S_ISREG(said.st_mode) or said.st_size > FILE_AT_MOST:
                raise CurveKeysError(f"{path} is no list of clients")
            if said.st_mode & 0o022:
                raise CurveKeysError(f"{path} can be written by others; chmod go-w it")
            table = tomllib.loads(file.read(FILE_AT_MOST).decode())
    except FileNotFoundError:
        raise CurveKeysError(
            f"no list of clients at {path}; `spikeloop keys FOLDER --client NAME` makes one"
        ) from None
    except OSError as err:
        raise CurveKeysError(f"cannot read {path}: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as err:
        raise CurveKeysError(f"{path} is not TOML: {err}") from err
    listed = check_config(table, ClientsFile, str(path), CurveKeysError)
    return tuple(Client(one.name, Role[one.role.upper()], one.key) for one in listed.client)


def client_entry(client: Client) -> str:
    """Return the lines of the file for a client."""
    fields = {"name": client.name, "role": client.role.title, "key": client.key}
    return "\n[[client]]\n" + "".join(f'{name} = "{said}"\n' for name, said in fields.items())


@dataclass(frozen=True, slots=True)
class Reread:
    """Changes found in the list.

    Attributes:
        added, removed: clients, by name; one whose role or key changed is in both.
        complaint: why it cannot be read, and the clients before stay; "" if it can.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    complaint: str = ""


class AllowedClients:
    """The clients of one daemon; any thread may ask.

    Args:
        listed: those who may connect.
        path: the file that they are from, looked at again by `refresh`; None for none.
    """

    def __init__(self, listed: Iterable[Client], path: Path | None = None) -> None:
        self._path, self._looked_at = path, _state_of(path)
        self.replace(listed)
        self._lock = threading.Lock()
        self._strangers: deque[str] = deque(maxlen=STRANGERS_KEPT)
        self._n_strangers = 0

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read them from a file.

        Raises:
            CurveKeysError: see `read_clients`.
        """
        # Made before the file is read: a change meanwhile is then seen by the next look.
        allowed = cls((), path)
        allowed.replace(read_clients(path))
        return allowed

    @property
    def listed(self) -> tuple[Client, ...]:
        """All of them."""
        return tuple(self._by_key.values())

    def of_key(self, key: str) -> Client | None:
        """Return the client with a public key; None for a stranger."""
        return self._by_key.get(key)

    def callback(self, domain: str, key: bytes) -> bool:
        """Return True if the key may connect; called by the thread that authenticates."""
        text = key.decode("ascii", "replace")
        if text in self._by_key:
            return True
        with self._lock:
            self._n_strangers += 1
            self._strangers.append(text)
        return False

    def take_strangers(self) -> tuple[int, str]:
        """Return how many strangers were turned away since the last call, and a key."""
        with self._lock:
            n, self._n_strangers = self._n_strangers, 0
            return n, self._strangers[-1] if n else ""

    def refresh(self) -> Reread | None:
        """Look at the file again, and read it if it has changed; None if it has not.

        A file that cannot be read leaves the clients as they are: a slip of the editor must not
        turn a running rig's operators away.
        """
        state = _state_of(self._path)
        if self._path is None or state == self._looked_at:
            return None
        self._looked_at = state
        try:
            before, after = set(self.listed), self.replace(read_clients(self._path))
        except CurveKeysError as err:
            return Reread(complaint=f"{err}; the clients before stay")
        return Reread(_names(after - before), _names(before - after))

    def replace(self, listed: Iterable[Client]) -> set[Client]:
        """Let these clients in, and no others; return them."""
        self._by_key = {client.key: client for client in listed}
        return set(self.listed)


def _names(clients: Iterable[Client]) -> tuple[str, ...]:
    return tuple(sorted(client.name for client in clients))


def _state_of(path: Path | None) -> tuple[int, ...]:
    """Return what changes with a file's content: times, size and place on the disk."""
    if path is None:
        return ()
    try:
        said = path.stat()
    except OSError as err:
        return (err.errno or 0,)
    return said.st_mtime_ns, said.st_ctime_ns, said.st_size, said.st_ino, said.st_mode
