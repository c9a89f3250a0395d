"""What `spikeloop doctor` says of recordings before a run is begun."""

from __future__ import annotations

from pathlib import Path

from service.config import RecordConfig
from service.doctor import recordings


def test_a_folder_that_can_be_made_is_well(tmp_path: Path) -> None:
    found = recordings(RecordConfig(folder=str(tmp_path / "a" / "b"), limit_gb=0.001))
    assert found.ok
    assert "0.001 GB at most" in found.said
    assert "may be full" not in found.said
    assert not (tmp_path / "a").exists()


def test_a_limit_beyond_the_disk_is_told(tmp_path: Path) -> None:
    found = recordings(RecordConfig(folder=str(tmp_path), limit_gb=1e9))
    assert found.ok
    assert "may be full" in found.said


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = recordings(RecordConfig(folder=str(tmp_path / "file" / "deep")))
    assert not found.ok
    assert "cannot be written" in found.said


def test_no_recordings_are_no_fault() -> None:
    assert recordings(RecordConfig(enabled=False)).ok
