"""Who may look and who may command."""

from __future__ import annotations

import pytest

from service.errors import ConfigError
from service.page.access import Access, read_bind, read_token
from streams.errors import AddressError

TOKEN = "t" * 20


def test_a_local_page_may_be_looked_at_by_all_and_commanded_by_nobody():
    access = Access("127.0.0.1", 5580, "")
    assert access.may_look("")
    assert not access.is_controlled
    assert not access.has_token("")


@pytest.mark.parametrize("host", ["127.0.0.1:5580", "localhost:5580", "[::1]:5580"])
def test_loopback_names_are_its_own(host):
    access = Access("127.0.0.1", 5580, "")
    assert access.knows_host(host)
    assert access.knows_origin(f"http://{host}")


@pytest.mark.parametrize("host", ["evil.org", "127.0.0.1:80", "127.0.0.1", "evil.org:5580", ""])
def test_names_that_were_rebound_are_not(host):
    access = Access("127.0.0.1", 5580, TOKEN)
    assert not access.knows_host(host)
    assert not access.knows_origin(f"http://{host}")
    assert not access.knows_origin("null")
    assert not access.knows_origin(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_a_page_that_is_seen_elsewhere_needs_a_token(host):
    with pytest.raises(AddressError, match="--token"):
        Access(host, 5580, "")
    access = Access(host, 5580, TOKEN)
    assert not access.may_look("")
    assert access.may_look(TOKEN)


def test_a_proxys_address_is_known_and_needs_the_token():
    with pytest.raises(AddressError, match="--token"):
        Access("127.0.0.1", 5580, "", ["https://page.lab.org"])
    access = Access("127.0.0.1", 5580, TOKEN, ["https://page.lab.org/"])
    assert access.knows_host("page.lab.org")
    assert access.knows_origin("https://page.lab.org")
    assert not access.knows_origin("http://page.lab.org")
    assert not access.may_look("")


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    made = read_token(path)
    assert len(made) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_token(path) == made


def test_a_token_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(path)


def test_a_token_that_can_be_guessed_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text("1234\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="fewer than 16"):
        read_token(path)


def test_a_token_in_no_folder_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read or made"):
        read_token(tmp_path / "none" / "token")


@pytest.mark.parametrize("text", ["", "5580", "localhost", "localhost:", ":5580", "h:99999", "h:x"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(AddressError, match="HOST:PORT"):
        read_bind(text)


def test_addresses_are_read():
    assert read_bind("127.0.0.1:5580") == ("127.0.0.1", 5580)
    assert read_bind("[::1]:0") == ("::1", 0)
