"""`calibrate --from-run`: which recordings, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.cli import main
from service.cli.from_run import NEWEST, recordings_in, seconds_until
from service.errors import ConfigError, ExitCode


def test_the_newest_runs_with_behaviour_stand_for_their_folder(tmp_path: Path) -> None:
    names = [f"2026112{i}T040000Z-0000000{i}" for i in range(9)]
    for i, name in enumerate(names):
        (tmp_path / name).mkdir()
        if i != 5:
            (tmp_path / name / "behavior-001.xdf").touch()
    other = tmp_path / "day.nwb"
    found = recordings_in([other, tmp_path])
    assert found[0] == other
    assert [one.name for one in found[1:]] == [name for name in names if name != names[5]][-NEWEST:]


def test_a_folder_of_runs_without_behaviour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "20261128T140141Z-7453be8e").mkdir()
    with pytest.raises(ConfigError, match=r"\[record\] behavior"):
        recordings_in([tmp_path])


@pytest.mark.parametrize(
    ("at", "hours"), [("04:30", 16.5), ("12:30", 0.5), ("12:00", 24.0), ("9:00", 21.0)]
)
def test_a_time_of_day_is_the_next_one(at: str, hours: float) -> None:
    now = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    assert seconds_until(at, now) == pytest.approx(3600.0 * hours)


@pytest.mark.parametrize("at", ["24:00", "4", "noon", "12:60", ""])
def test_what_is_no_time_of_day_is_refused(at: str) -> None:
    with pytest.raises(ConfigError, match="time of day"):
        seconds_until(at, datetime.now(UTC))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["day.xdf"], "say which decoder drove"),
        (["a.toml", "b.toml", "day.xdf"], "at most one CONFIG.toml"),
        (["a.toml"], "takes recordings"),
    ],
)
def test_what_lacks_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--from-run", *arguments]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_the_options_of_recordings_are_refused_without_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["calibrate", "calibrate.toml", "--swap"]) == ExitCode.USAGE
    assert "go with --from-run" in capsys.readouterr().err
