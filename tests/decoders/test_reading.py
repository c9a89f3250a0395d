"""The sessions of a glob: those without behaviour are passed over, broken ones named, all said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from decoders.config import TrainConfig
from decoders.errors import TrainingError
from decoders.train import load_recordings
from decoders.training.reading import read_sessions
from streams.sessions.session import Session
from tests.decoders.sessions import small_config
from tests.streams.foreign_nwb import trains, write


def config_of(**changes: Any) -> TrainConfig:
    sessions = {"glob": ["*.nwb"]} | changes.pop("sessions", {})
    outputs = [{"name": "velocity", "behavior": "cursor_vel", "unit": "cm/s"}]
    return small_config(outputs=outputs, sessions=sessions, **changes)


def read(folder: Path, **changes: Any) -> tuple[list[Session], list[str]]:
    said: list[str] = []
    return list(read_sessions(config_of(**changes), folder, folder, said.append)), said


def test_a_test_file_without_behaviour_is_passed_over_and_said(tmp_path: Path) -> None:
    write(tmp_path / "desc-test.nwb", series=False)
    write(tmp_path / "desc-train.nwb")
    sessions, said = read(tmp_path)
    assert [session.provenance["file"] for session in sessions] == ["desc-train.nwb"]
    assert len(said) == 1
    assert "passed over" in said[0]
    assert "desc-test.nwb has no behaviour 'cursor_vel'" in said[0]


def test_where_no_file_has_the_behaviour_all_are_named(tmp_path: Path) -> None:
    for name in ("a.nwb", "b.nwb"):
        write(tmp_path / name, series=False)
    with pytest.raises(TrainingError, match=r"2 of 2 files[^$]*a\.nwb has no[^$]*b\.nwb has no"):
        read(tmp_path)


def test_broken_files_are_named_all_of_them_and_nothing_is_trained(tmp_path: Path) -> None:
    for name in ("a.nwb", "c.nwb", "e.nwb"):
        write(tmp_path / name)
    (tmp_path / "b.nwb").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "d.nwb").write_bytes((tmp_path / "a.nwb").read_bytes()[:9000])
    with pytest.raises(TrainingError) as raised:
        load_recordings(config_of(), tmp_path, tmp_path, lambda text: None)
    text = str(raised.value)
    assert "2 of 5 files cannot be used" in text
    assert "b.nwb cannot be read: it is a Git LFS pointer" in text
    assert "d.nwb cannot be read: it is cut short" in text
    assert "a.nwb" not in text


def test_a_link_of_the_behaviour_that_is_broken_is_no_reason_to_pass_over(tmp_path: Path) -> None:
    write(tmp_path / "a.nwb")
    with h5py.File(write(tmp_path / "b.nwb"), "r+") as file:
        del file["processing/behavior/cursor_vel"]
        file["processing/behavior/cursor_vel"] = h5py.ExternalLink("gone.h5", "/x")
    with pytest.raises(TrainingError, match=r"1 of 2 files[^$]*b\.nwb.*gone\.h5"):
        read(tmp_path)


def test_what_was_mended_is_said(tmp_path: Path) -> None:
    spikes = trains()
    spikes[0][3] = np.nan
    write(tmp_path / "a.nwb", units=spikes)
    _, said = read(tmp_path)
    assert said == ["a.nwb: 1 spike times that are not finite"]


@pytest.mark.parametrize(
    ("same_array", "ids", "key", "warned"),
    [
        (True, None, "", True),
        (False, None, "", False),
        (True, [3, 4, 8, 9], "", False),
        (True, None, "channel", False),
    ],
)
def test_row_numbers_as_keys_of_one_array_are_warned_of(
    tmp_path: Path, same_array: bool, ids: list[int] | None, key: str, warned: bool
) -> None:
    for name in ("a.nwb", "b.nwb"):
        write(tmp_path / name, ids=ids, unit_columns={"channel": [5, 7, 1, 2]})
    _, said = read(tmp_path, sessions={"same_array": same_array, "units": {"key": key}})
    assert len(said) == (2 if warned else 0)
    assert all("row numbers" in text and 'units.key = "electrodes"' in text for text in said)


def test_files_are_held_out_by_their_names(tmp_path: Path) -> None:
    for name in ("run-1.nwb", "run-2.nwb", "run-3.nwb"):
        write(tmp_path / name)
    sessions, said = read(tmp_path, split={"test_files": ["*-2.nwb", "*-3.nwb"]})
    assert [session.provenance["file"] for session in sessions] == ["run-1.nwb"]
    assert len(said) == 2
    with pytest.raises(TrainingError, match="holds every session out"):
        read(tmp_path, split={"test_files": ["*"]})


def test_choices_of_the_config_reach_the_reader(tmp_path: Path) -> None:
    write(
        tmp_path / "a.nwb",
        units_at="processing/ecephys/sorted",
        unit_columns={
            "quality": np.array([b"good", b"bad", b"good", b"bad"]),
            "cluster": [4, 5, 6, 7],
        },
    )
    units = {"table": "sorted", "where": "quality == 'good'", "key": "cluster"}
    sessions, _ = read(tmp_path, sessions={"units": units})
    assert sessions[0].unit_keys == ("u4", "u6")
