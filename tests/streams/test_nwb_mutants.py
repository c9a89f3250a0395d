"""Every part of a file deleted or replaced in turn: it is read, or refused in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from streams.errors import SessionError
from streams.sessions.choice import EVERYTHING, SessionChoice, UnitChoice
from streams.sessions.reading import read_session
from tests.streams.foreign_nwb import add_ragged, add_series, add_table, add_trials, stamps, write

CHOSEN = SessionChoice(
    behavior=("cursor_vel",),
    mask="eval_mask",
    units=UnitChoice(where="quality == 'good'", key="electrodes"),
)


def whole(path: Path) -> Path:
    """A file with something of every kind that is read."""
    write(path, unit_columns={"quality": np.array([b"good", b"bad", b"good", b"good"])})
    with h5py.File(path, "r+") as file:
        add_table(file, "general/extracellular_ephys/electrodes", 4, {"group_name": [b"a"] * 4})
        add_ragged(file["units"], "electrodes", np.arange(4), [1] * 4)
        add_series(file, "acquisition/eval_mask", np.ones(len(stamps()), np.bool_), stamps())
        add_series(file, "acquisition/regular", np.zeros(100), rate=10.0)
        add_trials(file, 9, {"split": [b"train"] * 9})
    return path


def replaced(make: Callable[[h5py.File, str], object]) -> Callable[[h5py.File, str], None]:
    def change(file: h5py.File, name: str) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        make(file, name)
        for key, value in attributes.items():
            if file.get(name) is not None:
                file[name].attrs[key] = value

    return change


def without_attributes(file: h5py.File, name: str) -> None:
    for key in list(file[name].attrs):
        del file[name].attrs[key]


def halved(file: h5py.File, name: str) -> None:
    if isinstance(file[name], h5py.Dataset) and file[name].shape:
        half = file[name][: len(file[name]) // 2]
        del file[name]
        file[name] = half


def all_nan(file: h5py.File, name: str) -> None:
    if isinstance(file[name], h5py.Dataset) and file[name].dtype.kind == "f" and file[name].shape:
        file[name][...] = np.nan


def huge(file: h5py.File, name: str) -> None:
    if isinstance(file[name], h5py.Dataset) and file[name].dtype.kind in "iuf" and file[name].shape:
        file[name][...] = np.array(1e300 if file[name].dtype.kind == "f" else 120).astype(
            file[name].dtype
        )


CHANGES = {
    "deleted": replaced(lambda file, name: None),
    "a scalar": replaced(lambda file, name: file.create_dataset(name, data=3.5)),
    "empty": replaced(lambda file, name: file.create_dataset(name, data=np.zeros(0))),
    "text": replaced(lambda file, name: file.create_dataset(name, data=[b"x", b"y"])),
    "a group": replaced(lambda file, name: file.create_group(name)),
    "a cube": replaced(lambda file, name: file.create_dataset(name, data=np.zeros((2, 3, 4)))),
    "a link": replaced(lambda file, name: file.__setitem__(name, h5py.SoftLink("/gone"))),
    "references": replaced(
        lambda file, name: file.create_dataset(name, data=[file.ref] * 2, dtype=h5py.ref_dtype)
    ),
    "bare": without_attributes,
    "halved": halved,
    "nan": all_nan,
    "huge": huge,
}


def refusal(path: Path, choice: SessionChoice) -> str:
    """What a file is refused with; "" where it is read, then as a session of its usual length."""
    try:
        session = read_session(path, choice)
    except SessionError as error:
        return str(error)
    assert session.duration_s < 1e4
    return ""


@pytest.mark.parametrize("change", CHANGES)
def test_a_part_that_is_wrong_is_no_traceback(tmp_path: Path, change: str) -> None:
    path, copy = whole(tmp_path / "a.nwb"), tmp_path / "b.nwb"
    assert refusal(path, CHOSEN) == ""
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
    refused = []
    for name in names:
        shutil.copy(path, copy)
        with h5py.File(copy, "r+") as file:
            CHANGES[change](file, name)
        refused += [text for text in (refusal(copy, EVERYTHING), refusal(copy, CHOSEN)) if text]
    assert all(str(copy) in text and "\n" not in text for text in refused)
    assert len(refused) < 2 * len(names)
    assert refused or change == "bare"


def test_bytes_that_are_wrong_are_no_traceback(tmp_path: Path) -> None:
    content = whole(tmp_path / "a.nwb").read_bytes()
    rng = np.random.default_rng(0)
    for i in range(60):
        mutant = bytearray(content)
        for at in rng.integers(len(content) if i % 2 else 20_000, size=20).tolist():
            mutant[at] = int(rng.integers(256))
        (tmp_path / "b.nwb").write_bytes(bytes(mutant))
        refused = [refusal(tmp_path / "b.nwb", choice) for choice in (EVERYTHING, CHOSEN)]
        assert all("b.nwb" in text for text in refused if text)
