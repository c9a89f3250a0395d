"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streams.files import write_whole, written_whole


def test_a_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    for content in ("old", "µ", b"\xff"):
        write_whole(path, content)
    assert path.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_whole(path, "old")

    def write_half() -> None:
        with written_whole(path) as beside:
            beside.write_text("ne")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_whole(path, "old")
    program = (
        "import os, signal, sys, pathlib\n"
        "from streams.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('ne')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    path = tmp_path / ("bundle" * 30)
    with written_whole(path) as beside:
        (beside / "report").mkdir(parents=True)
        (beside / "report" / "page.html").write_text("page")
        assert not path.exists()
    assert (path / "report" / "page.html").read_text() == "page"
    with pytest.raises(OSError, match="not empty"), written_whole(path) as beside:
        beside.mkdir()
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_put_in_the_place_of_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with written_whole(tmp_path / "current") as beside:
            os.symlink(name, beside)
    assert os.readlink(tmp_path / "current") == "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "current"]
