"""The role that each command needs, and events about those who are turned away."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from service.config import OutputConfig
from service.errors import ConfigError
from streams.clock import Clock
from streams.wire.authentication import only_client
from streams.wire.clients import AllowedClients, Client
from streams.wire.curve_keys import CurveKeys, read_curve_keys
from streams.wire.roles import Role
from streams.wire.subscribers import Ended

NEEDED: dict[str, Role] = {
    "status": Role.WATCH,
    "deployment": Role.WATCH,
    "mark": Role.MARK,
    "pause": Role.OPERATE,
    "resume": Role.OPERATE,
    "shape": Role.OPERATE,
    "stop": Role.OPERATE,
    "swap": Role.DEPLOY,
    "keep": Role.DEPLOY,
    "send_begin": Role.DEPLOY,
    "send_chunk": Role.DEPLOY,
    "send_end": Role.DEPLOY,
    "promote": Role.DEPLOY,
    "dismiss": Role.DEPLOY,
    "rollback": Role.DEPLOY,
}
"""The lowest role of a client that may give a command; one that is not named needs the highest."""
LOOK_EVERY_S = 0.5
TOLD_EVERY_S = 10.0
"""Of those turned away one is told at once, and then how many more there were."""
KEPT = 100
CHANGED = "clients_changed"
COUNTED = ("command_refused", "connection_ended", "stranger_refused")
Events = list[tuple[str, dict[str, Any]]]


def read_access(output: OutputConfig) -> tuple[CurveKeys | None, AllowedClients | None]:
    """Read the daemon's keys and the list of its clients; None for both where there are no keys.

    Raises:
        CurveKeysError: a file is missing or wrong.
        ConfigError: clients without keys.
    """
    if not output.keys:
        if output.clients:
            raise ConfigError("output.clients lists whose keys may connect: output.keys is missing")
        return None, None
    keys = read_curve_keys(Path(output.keys))
    if not output.clients:
        return keys, only_client(keys)
    return keys, AllowedClients.of_file(Path(output.clients))


def refusal(command: str, client: Client | None) -> str:
    """Return why a client may not give a command; "" if it may."""
    if client is None:
        return "your key is not in the daemon's list of clients any more"
    needed = NEEDED.get(command, Role.DEPLOY)
    if client.role >= needed:
        return ""
    return (
        f"`{command}` needs the role {needed.title}, and {client.name!r} has {client.role.title}; "
        "whoever keeps the daemon's list of clients can change that"
    )


class _Counted:
    """Events of one kind, told at once and then at most every few seconds."""

    def __init__(self) -> None:
        self.n, self._t_next_s = 0, float("-inf")
        self.latest: dict[str, Any] = {}

    def add(self, detail: dict[str, Any], n: int = 1) -> None:
        self.n, self.latest = self.n + n, detail

    def due(self, t_s: float) -> dict[str, Any] | None:
        if not self.n or t_s < self._t_next_s:
            return None
        told = self.latest | {"n": self.n}
        self.n, self._t_next_s = 0, t_s + TOLD_EVERY_S
        return told


class Doorkeeper:
    """Keeps the list of clients current, and counts who is turned away.

    One thread looks and takes events; `ended` may be called by another.

    Args:
        clients: the daemon's; None without keys.
        clock: the daemon's.
    """

    def __init__(self, clients: AllowedClients | None, clock: Clock) -> None:
        self._clients, self._clock = clients, clock
        self._t_look_s = clock.now()
        self._changes: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._ended: deque[Ended] = deque(maxlen=KEPT)
        self._counted = {name: _Counted() for name in COUNTED}

    @property
    def listed(self) -> tuple[Client, ...]:
        """The clients."""
        return () if self._clients is None else self._clients.listed

    def look(self) -> None:
        """Read the list again if it has changed, every half second at most."""
        if self._clients is None or self._clock.now() < self._t_look_s:
            return
        self._t_look_s = self._clock.now() + LOOK_EVERY_S
        found = self._clients.refresh()
        if found is not None and found.complaint:
            self._changes.append({"warning": found.complaint})
        elif found is not None:
            self._changes.append({"added": [*found.added], "removed": [*found.removed]})

    def refuse(self, command: str, client: Client | None) -> str:
        """Return why a client may not give a command, and count it; "" if it may."""
        if why := refusal(command, client):
            name, role = (client.name, client.role.title) if client else ("", "")
            detail = {"client": name, "role": role, "command": command, "warning": why}
            self._counted["command_refused"].add(detail)
        return why

    def ended(self, ended: Iterable[Ended]) -> None:
        """Note clients whose connections were ended."""
        self._ended.extend(ended)

    def take_events(self) -> Events:
        """Return what is to be reported now."""
        events: Events = []
        while self._changes:
            events.append((CHANGED, self._changes.popleft()))
        while self._ended:
            one = self._ended.popleft()
            detail = {
                "client": self._name(one.key),
                "warning": f"a connection was ended: {one.why}",
            }
            self._counted["connection_ended"].add(detail)
        n, key = self._clients.take_strangers() if self._clients else (0, "")
        if n:
            warning = f"a client with the unknown key {key} was turned away"
            self._counted["stranger_refused"].add({"key": key, "warning": warning}, n)
        for name, counted in self._counted.items():
            if (told := counted.due(self._clock.now())) is not None:
                events.append((name, told))
        return events

    def _name(self, key: str) -> str:
        client = self._clients.of_key(key) if self._clients else None
        return client.name if client else ""
