"""Where libraries keep what they compile when the user's home cannot be written."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from service.caches import provide_cache_folder

NO_FOLDER = "/dev/null"
"""Nothing can be made below it, whoever asks, root too."""


@pytest.fixture(autouse=True)
def _own_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that the fixture puts back what was there
        monkeypatch.delenv(name)


def folder() -> Path:
    provide_cache_folder()
    return Path(os.environ["XDG_CACHE_HOME"])


def test_a_home_that_can_be_written_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    provide_cache_folder()
    assert "XDG_CACHE_HOME" not in os.environ
    assert "MPLCONFIGDIR" not in os.environ


def test_a_chosen_cache_folder_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", NO_FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "chosen"))
    assert folder() == tmp_path / "chosen"


@pytest.mark.parametrize("chosen", ["", NO_FOLDER, f"{NO_FOLDER}/deeper", "not/absolute"])
def test_otherwise_there_is_one_of_the_users_own(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("HOME", NO_FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", chosen)
    first = folder()
    (first / "kept").touch()
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert os.environ["MPLCONFIGDIR"].startswith(str(first))
    monkeypatch.setenv("XDG_CACHE_HOME", chosen)  # the next command finds it again
    assert (folder() / "kept").exists()


def test_a_chosen_folder_of_matplotlib_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", NO_FOLDER)
    monkeypatch.setenv("MPLCONFIGDIR", "/chosen")
    folder()
    assert os.environ["MPLCONFIGDIR"] == "/chosen"


@pytest.mark.parametrize("trap", ["open to others", "a link", "a file"])
def test_what_others_may_have_put_there_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trap: str
) -> None:
    monkeypatch.setenv("HOME", NO_FOLDER)
    place = Path(tempfile.gettempdir()) / f"spikeloop-cache-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if trap == "open to others":
        place.mkdir()
        place.chmod(0o777)
    elif trap == "a link":
        place.symlink_to(elsewhere)
    else:
        place.touch(0o600)
    found = folder()
    assert found not in (place, elsewhere)
    assert found.resolve() != elsewhere
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_where_nothing_can_be_written_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", NO_FOLDER)
    monkeypatch.setattr(tempfile, "tempdir", NO_FOLDER)
    provide_cache_folder()
    assert "XDG_CACHE_HOME" not in os.environ
