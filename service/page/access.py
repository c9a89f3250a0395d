"""Rights to look and to command: hosts, origins and the token."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import ConfigError
from streams.errors import AddressError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FEWEST_LETTERS = 16


class Access:
    """Judges requests.

    Args:
        host: that the page is bound to.
        port: likewise.
        token: of those who may command; "" where nobody may.
        origins: where a proxy shows the page.

    Raises:
        AddressError: it would be seen beyond this machine without a token.
    """

    def __init__(self, host: str, port: int, token: str, origins: Sequence[str] = ()) -> None:
        self._token = token
        self.is_local = host in LOOPBACK and not origins
        if not self.is_local and not token:
            raise AddressError(
                f"a page that is seen beyond this machine ({host}) needs a token: name a file for "
                "it with --token, and let a proxy make it TLS (docs/page.md)"
            )
        here = [host] if host not in LOOPBACK else list(LOOPBACK)
        own = {f"http://{'[' + h + ']' if ':' in h else h}:{port}" for h in here}
        self._origins = frozenset(own | {origin.rstrip("/") for origin in origins})
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)

    @property
    def is_controlled(self) -> bool:
        """True where somebody may command."""
        return bool(self._token)

    def knows_host(self, host: str) -> bool:
        """Return True if a request was meant for this page: no name that was rebound to it."""
        return host in self._hosts

    def knows_origin(self, origin: str | None) -> bool:
        """Return True if a page of ours made the request."""
        return origin is not None and origin in self._origins

    def has_token(self, given: str) -> bool:
        """Return True if it is the token; takes as long for one that nearly is."""
        return bool(self._token) and hmac.compare_digest(given.encode(), self._token.encode())

    def may_look(self, given: str) -> bool:
        """Return True if whoever gave this token, or "", may look."""
        return self.is_local or self.has_token(given)


def read_token(path: Path) -> str:
    """Read the token in a file that only its owner can read; make the file if there is none.

    Raises:
        ConfigError: others can read it, it is too short, or it cannot be made.
    """
    try:
        if not path.exists():
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
        mode, token = path.stat().st_mode, path.read_text().strip()
    except OSError as err:
        raise ConfigError(f"the token {path} cannot be read or made: {err.strerror}") from err
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others can read the token {path}; `chmod 600 {path}`")
    if len(token) < FEWEST_LETTERS:
        raise ConfigError(
            f"the token in {path} has {len(token)} letters, fewer than {FEWEST_LETTERS}; delete "
            "the file, and a new one is made"
        )
    return token


def read_bind(text: str) -> tuple[str, int]:
    """Read HOST:PORT.

    Raises:
        AddressError: it is none.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise AddressError(f"{text!r} is no HOST:PORT, such as 127.0.0.1:5580")
    return host, int(port)
