"""Roles: every command with every role, and what is told of those who are turned away."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from service.config import OutputConfig
from service.daemon.access import NEEDED, TOLD_EVERY_S, Doorkeeper, read_access, refusal
from service.daemon.control import HANDLERS
from service.errors import ConfigError
from streams.clock import ManualClock
from streams.wire.authentication import new_pair
from streams.wire.clients import ANYBODY, AllowedClients, Client, client_entry
from streams.wire.curve_keys import write_curve_keys
from streams.wire.roles import Role, RoleName
from streams.wire.subscribers import Ended

MAY = {
    Role.WATCH: {"status", "deployment"},
    Role.MARK: {"status", "deployment", "mark"},
    Role.OPERATE: {"status", "deployment", "mark", "pause", "resume", "shape", "stop"},
    Role.DEPLOY: set(HANDLERS),
}
OPERATORS = {
    "swap", "keep", "send_begin", "send_chunk", "send_end", "promote", "dismiss", "rollback",
}  # fmt: skip


@pytest.mark.parametrize("command", sorted(HANDLERS))
@pytest.mark.parametrize("role", list(Role))
def test_every_command_with_every_role(command: str, role: Role) -> None:
    told = refusal(command, Client("ada", role, "k"))
    if command in MAY[role]:
        assert told == ""
    else:
        assert f"`{command}` needs the role {NEEDED[command].title}" in told
        assert f"'ada' has {role.title}" in told


@pytest.mark.parametrize("command", sorted(HANDLERS))
def test_who_is_not_in_the_list_may_nothing(command: str) -> None:
    assert "not in the daemon's list" in refusal(command, None)
    assert refusal(command, ANYBODY) == ""


def test_every_command_is_in_the_table_and_no_other() -> None:
    assert NEEDED.keys() == HANDLERS.keys()
    assert {name for name, role in NEEDED.items() if role is Role.DEPLOY} == OPERATORS


def test_a_command_that_nobody_put_in_the_table_needs_the_highest_role() -> None:
    assert "needs the role deploy" in refusal("new", Client("ada", Role.OPERATE))


def test_role_names_are_the_roles() -> None:
    assert [role.title for role in Role] == list(get_args(RoleName))


def test_refusals_are_told_at_once_and_then_counted() -> None:
    clock = ManualClock()
    door = Doorkeeper(None, clock)
    ada = Client("ada", Role.WATCH)
    door.refuse("stop", ada)
    ((event, detail),) = door.take_events()
    assert (event, detail["client"], detail["role"], detail["n"]) == (
        "command_refused", "ada", "watch", 1,
    )  # fmt: skip
    for _ in range(1000):
        door.refuse("stop", ada)
    assert door.take_events() == []
    clock.t_s += TOLD_EVERY_S
    assert [told["n"] for _, told in door.take_events()] == [1000]
    assert door.refuse("status", ada) == ""
    clock.t_s += TOLD_EVERY_S
    assert door.take_events() == []


def test_strangers_and_ended_subscribers_are_told() -> None:
    clients = AllowedClients([Client("ada", Role.WATCH, "k")])
    door = Doorkeeper(clients, ManualClock())
    assert clients.callback("*", b"k")
    for _ in range(3):
        assert not clients.callback("*", b"other")
    door.ended([Ended("k", "over 100 subscriptions")])
    events = dict(door.take_events())
    assert events["stranger_refused"]["n"] == 3
    assert "other" in events["stranger_refused"]["warning"]
    assert events["connection_ended"]["client"] == "ada"
    assert "over 100" in events["connection_ended"]["warning"]


def test_a_changed_list_is_an_event_and_a_broken_one_changes_nobody(tmp_path: Path) -> None:
    path, clock = tmp_path / "clients.toml", ManualClock()
    ada, bob = (Client(name, Role.MARK, new_pair()[0]) for name in ("ada", "bob"))
    path.write_text(client_entry(ada))
    clients = AllowedClients.of_file(path)
    door = Doorkeeper(clients, clock)
    path.write_text(client_entry(bob))
    door.look()
    assert door.take_events() == [("clients_changed", {"added": ["bob"], "removed": ["ada"]})]
    assert clients.listed == (bob,)
    for broken in ("[[client]", client_entry(bob) + client_entry(bob), "[[client]]\nname='x'\n"):
        path.write_text(broken)
        clock.t_s += 1.0
        door.look()
        ((event, detail),) = door.take_events()
        assert event == "clients_changed"
        assert "the clients before stay" in detail["warning"]
        assert clients.listed == (bob,)
    path.unlink()
    clock.t_s += 1.0
    door.look()
    assert "no list of clients" in door.take_events()[0][1]["warning"]
    assert clients.listed == (bob,)


def test_a_key_folder_without_a_list_lets_its_client_do_everything(tmp_path: Path) -> None:
    client = new_pair()
    write_curve_keys(tmp_path, new_pair(), client)
    _, clients = read_access(OutputConfig(keys=str(tmp_path / "server.json")))
    assert clients is not None
    assert clients.of_key(client[0]) == Client("client", Role.DEPLOY, client[0])


def test_a_list_without_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"output\.keys is missing"):
        read_access(OutputConfig(clients="clients.toml"))
    assert read_access(OutputConfig()) == (None, None)
