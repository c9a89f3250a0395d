"""The list of clients and the keys in it: what is read, what is refused, what is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.errors import CurveKeysError
from streams.wire.authentication import new_pair
from streams.wire.clients import FILE_AT_MOST, Client, client_entry, read_clients
from streams.wire.curve_keys import add_client, read_curve_keys, write_curve_keys
from streams.wire.roles import Role


def entry(**fields: str) -> str:
    client = {"name": "ada", "role": "watch", "key": new_pair()[0]} | fields
    return "[[client]]\n" + "".join(f'{name} = "{said}"\n' for name, said in client.items())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    clients = tuple(Client(role.title, role, new_pair()[0]) for role in Role)
    path = tmp_path / "clients.toml"
    path.write_text("".join(map(client_entry, clients)))
    assert read_clients(path) == clients


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (entry(role="admin"), "client.0.role"),
        (entry(key="short"), "client.0.key"),
        (entry(key="x" * 39 + "\u00e9"), "client.0.key"),
        (entry(name="a b"), "client.0.name"),
        (entry(name=""), "client.0.name"),
        (entry(name="n" * 65), "client.0.name"),
        (entry(nickname="x"), "unknown key"),
        (entry() + entry(), "the name 'ada' stands there twice"),
        ("".join(entry(name=f"c{i}") for i in range(1001)), "at most 1000"),
        ("client = 3", "client"),
        ("[[client]", "is not TOML"),
        ("[" * 5000, "is not TOML"),
    ],
    ids=range(12),  # the texts hold keys, and those are drawn anew in each process
)
def test_a_wrong_list_is_refused_by_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "clients.toml"
    path.write_text(text)
    with pytest.raises(CurveKeysError, match=told):
        read_clients(path)


def test_files_that_are_no_list(tmp_path: Path) -> None:
    path = tmp_path / "clients.toml"
    with pytest.raises(CurveKeysError, match="no list of clients"):
        read_clients(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CurveKeysError, match="is not TOML"):
        read_clients(path)
    os.truncate(path, FILE_AT_MOST + 1)
    with pytest.raises(CurveKeysError, match="is no list"):
        read_clients(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CurveKeysError, match="is no list"):
            read_clients(other)
    with pytest.raises(CurveKeysError, match="cannot read"):
        read_clients(tmp_path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_list_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "clients.toml"
    path.write_text(entry())
    path.chmod(mode)
    with pytest.raises(CurveKeysError, match="can be written by others; chmod go-w"):
        read_clients(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_curve_keys(tmp_path / "keys", new_pair(), new_pair())
    return tmp_path / "keys"


def test_a_client_is_added_beside_those_who_could_connect(folder: Path) -> None:
    for name, role in (("ada", Role.WATCH), ("bob", Role.OPERATE)):
        public, secret = new_pair()
        path = add_client(folder, Client(name, role, public), secret)
        held = read_curve_keys(path)
        assert (held.public, held.secret) == (public, secret)
        assert held.other == read_curve_keys(folder / "server.json").public
    listed = read_clients(folder / "clients.toml")
    assert [(one.name, one.role) for one in listed] == [
        ("client", Role.DEPLOY), ("ada", Role.WATCH), ("bob", Role.OPERATE),
    ]  # fmt: skip
    assert listed[0].key == read_curve_keys(folder / "server.json").other
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_comments_in_the_list_stay(folder: Path) -> None:
    add_client(folder, Client("ada", Role.WATCH, new_pair()[0]), new_pair()[1])
    path = folder / "clients.toml"
    path.write_text(path.read_text() + "# the corridor's screen\n")
    add_client(folder, Client("bob", Role.WATCH, new_pair()[0]), new_pair()[1])
    assert "# the corridor's screen" in path.read_text()


def test_a_name_that_is_taken_changes_nothing(folder: Path) -> None:
    add_client(folder, Client("ada", Role.WATCH, new_pair()[0]), new_pair()[1])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("ada", "client", "server"):
        with pytest.raises(CurveKeysError, match=r"already|exists"):
            add_client(folder, Client(name, Role.DEPLOY, new_pair()[0]), new_pair()[1])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_without_keys(tmp_path: Path) -> None:
    with pytest.raises(CurveKeysError, match="no keys at"):
        add_client(tmp_path, Client("ada", Role.WATCH, new_pair()[0]), new_pair()[1])
    assert list(tmp_path.iterdir()) == []
