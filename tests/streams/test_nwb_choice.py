"""What of a file is read: series, mask, units and their keys, tables, counts, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from streams.errors import LackingError, SessionError
from streams.sessions.choice import CountChoice, SessionChoice, TrialChoice, UnitChoice
from streams.sessions.conditions import trials_where
from streams.sessions.reading import read_session
from tests.streams.foreign_nwb import (
    add_ragged,
    add_series,
    add_table,
    add_trials,
    stamps,
    trains,
    wave,
    write,
)

MUSCLES = ("FCR", "APB", "ECU")


def with_container(path: Path) -> Path:
    write(path, series=False)
    with h5py.File(path, "r+") as file:
        group = file.create_group("acquisition/emg")
        group.attrs["neurodata_type"] = "BehavioralTimeSeries"
        for i, muscle in enumerate(MUSCLES):
            add_series(
                file, f"acquisition/emg/{muscle}", wave(stamps())[:, 0] + i, stamps(), unit="mV"
            )
    return path


@pytest.mark.parametrize("name", ["emg", "acquisition/emg"])
def test_a_container_is_one_signal_of_all_its_series(tmp_path: Path, name: str) -> None:
    path = with_container(tmp_path / "a.nwb")
    emg = read_session(path, SessionChoice(behavior=(name,))).signal(name)
    assert emg.values.shape == (len(stamps()), 3)
    assert emg.unit == "mV"
    # In the order in which HDF5, and so pynwb, gives them.
    np.testing.assert_allclose(emg.values[0], [1.0, 2.0, 0.0])


def test_one_series_of_a_container_is_still_itself(tmp_path: Path) -> None:
    path = with_container(tmp_path / "a.nwb")
    session = read_session(path, SessionChoice(behavior=("ECU",)))
    assert list(session.behavior) == ["acquisition/emg/ECU"]


def test_a_module_is_no_container(tmp_path: Path) -> None:
    with pytest.raises(LackingError, match="no behaviour 'behavior'"):
        read_session(write(tmp_path / "a.nwb"), SessionChoice(behavior=("behavior",)))


def test_series_of_other_times_are_not_joined(tmp_path: Path) -> None:
    path = with_container(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        add_series(file, "acquisition/emg/BCP", wave(stamps())[:-1, 0], stamps()[:-1])
    session = read_session(path, SessionChoice(behavior=("emg",)))
    with pytest.raises(SessionError, match=r"not the same times \(lengths 1500, 1499"):
        session.signal("emg")


def break_stamps(file: h5py.File) -> None:
    add_series(file, "acquisition/other", wave(stamps()), stamps()[:3])


def break_link(file: h5py.File) -> None:
    file["acquisition/other"] = h5py.ExternalLink("absent.h5", "/x")


def break_inner_link(file: h5py.File) -> None:
    group = add_series(file, "acquisition/other", wave(stamps()), stamps())
    del group["timestamps"]
    group["timestamps"] = h5py.SoftLink("/nowhere")


def name_an_unknown_kind(file: h5py.File) -> None:
    file.create_group("acquisition/other").attrs["neurodata_type"] = "FromAnExtension"


@pytest.mark.parametrize(
    "spoil", [break_stamps, break_link, break_inner_link, name_an_unknown_kind]
)
def test_what_nobody_asked_for_does_no_harm(
    tmp_path: Path, spoil: Callable[[h5py.File], None]
) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        spoil(file)
    session = read_session(path, SessionChoice(behavior=("cursor_vel",)))
    assert list(session.behavior) == ["processing/behavior/cursor_vel"]
    assert list(read_session(path).behavior) == ["processing/behavior/cursor_vel"]


def masked(path: Path, mask: Any, t_s: np.ndarray | None = None, **more: Any) -> Path:
    write(path)
    with h5py.File(path, "r+") as file:
        add_series(file, "acquisition/eval_mask", mask, stamps() if t_s is None else t_s, **more)
    return path


FIRST_HALF = stamps() < 15.0


@pytest.mark.parametrize("mask", [FIRST_HALF, FIRST_HALF.astype(float), FIRST_HALF[:, None]])
def test_a_mask_leaves_only_its_samples(tmp_path: Path, mask: np.ndarray) -> None:
    path = masked(tmp_path / "a.nwb", mask)
    choice = SessionChoice(behavior=("cursor_vel",), mask="eval_mask")
    signal = read_session(path, choice).signal("cursor_vel")
    known = np.isfinite(signal.at(stamps())).all(axis=1)
    np.testing.assert_array_equal(known, FIRST_HALF)
    # Between a sample of the mask and one that is not, both would be used.
    assert np.isfinite(signal.at(np.array([14.97]))).all()
    assert np.isnan(signal.at(np.array([14.99]))).all()


def test_a_short_hole_of_a_mask_is_not_bridged(tmp_path: Path) -> None:
    mask = np.ones(len(stamps()), np.bool_)
    mask[500] = False
    path = masked(tmp_path / "a.nwb", mask)
    choice = SessionChoice(behavior=("cursor_vel",), mask="eval_mask")
    signal = read_session(path, choice).signal("cursor_vel")
    known = np.isfinite(signal.at(stamps())).all(axis=1)
    np.testing.assert_array_equal(known, mask)


def test_a_mask_at_other_times_holds_where_both_its_samples_do(tmp_path: Path) -> None:
    t_s = np.arange(0.0, 30.0, 0.1)
    path = masked(tmp_path / "a.nwb", t_s < 15.0, t_s)
    choice = SessionChoice(behavior=("cursor_vel",), mask="eval_mask")
    known = np.isfinite(read_session(path, choice).signal("cursor_vel").at(stamps()))[:, 0]
    assert known[stamps() < 14.9].all()
    assert not known[stamps() > 14.92].any()


def test_a_mask_of_a_regular_series_with_falcons_h1_quirk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", series=False)
    n = 1000
    half = np.arange(n) < n // 2
    with h5py.File(path, "r+") as file:
        quirk = {"rate": 0.02, "offset": 10.0}
        add_series(file, "acquisition/Kinematics", wave(np.arange(n) * 0.02), **quirk)
        add_series(file, "acquisition/eval_mask", half, **quirk)
    choice = SessionChoice(behavior=("Kinematics",), mask="eval_mask")
    signal = read_session(path, choice).signal("Kinematics")
    np.testing.assert_allclose(signal.t_s, 10.0 + np.arange(n) * 0.02)
    np.testing.assert_array_equal(np.isfinite(signal.at(signal.t_s))[:, 0], half)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.zeros(len(stamps())), "holds no sample"),
        (wave(stamps())[:, 0], "not one column of 0 and 1"),
        (np.ones((len(stamps()), 2)), "not one column of 0 and 1"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, mask: np.ndarray, text: str) -> None:
    path = masked(tmp_path / "a.nwb", mask)
    with pytest.raises(SessionError, match=text):
        read_session(path, SessionChoice(behavior=("cursor_vel",), mask="eval_mask"))


def test_a_file_without_the_mask_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(
        SessionError, match=r"no behaviour 'eval_mask'.*\[sessions\] mask"
    ) as raised:
        read_session(
            write(tmp_path / "a.nwb"), SessionChoice(behavior=("cursor_vel",), mask="eval_mask")
        )
    assert not isinstance(raised.value, LackingError)


QUALITY = {"quality": np.array([b"good", b"noise", b"good", b"mua"]), "snr": [3.0, 9.0, 0.5, 4.0]}


def keys_of(path: Path, **choice: Any) -> tuple[str, ...]:
    session = read_session(
        path, SessionChoice(behavior=("cursor_vel",), units=UnitChoice(**choice))
    )
    held = [session.unit_keys[i] for i in np.unique(session.spikes.unit)]
    assert tuple(held) == session.unit_keys
    return session.unit_keys


def test_units_are_chosen_by_a_condition(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", unit_columns=QUALITY)
    assert keys_of(path, where="quality == 'good'") == ("u0", "u2")
    assert keys_of(path, where="quality != 'noise' and snr > 1") == ("u0", "u3")
    session = read_session(path, SessionChoice(units=UnitChoice(where="quality == 'mua'")))
    np.testing.assert_allclose(session.spikes.t_us * 1e-6, trains()[3], atol=1e-6)
    with pytest.raises(SessionError, match="leaves no unit"):
        keys_of(path, where="snr > 100")
    with pytest.raises(SessionError, match=r"no column of the table; columns: id .*quality"):
        keys_of(path, where="label == 'good'")


def test_units_are_named_by_a_column(tmp_path: Path) -> None:
    columns = {"label": np.array([b"a1", b"b2", b"c3", b"d4"]), "cluster": [7, 9, 4, 2]}
    path = write(tmp_path / "a.nwb", unit_columns=columns)
    assert keys_of(path, key="label") == ("a1", "b2", "c3", "d4")
    assert keys_of(path, key="cluster") == ("u7", "u9", "u4", "u2")
    with pytest.raises(SessionError, match="no column 'name'; it has: id, label, cluster"):
        keys_of(path, key="name")


def test_units_are_named_by_their_electrodes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        groups = {"group_name": np.array([b"left", b"left", b"right"])}
        add_table(file, "general/extracellular_ephys/electrodes", 3, groups, ids=[101, 102, 103])
        add_ragged(file["units"], "electrodes", [2, 0, 0, 1], [1, 1, 1, 1])
    assert keys_of(path, key="electrodes") == ("ch103/u1", "ch101/u1", "ch101/u2", "ch102/u1")
    assert keys_of(path, key="probe:id") == ("right:u0", "left:u1", "left:u2", "left:u3")


@pytest.mark.parametrize("column", ["probe", "electrode_group_name", "device_name"])
def test_ids_that_repeat_over_probes_are_told_apart(tmp_path: Path, column: str) -> None:
    columns = {column: np.array([b"A", b"A", b"B", b"B"])}
    path = write(tmp_path / "a.nwb", ids=[0, 1, 0, 1], unit_columns=columns)
    with pytest.raises(SessionError, match=rf'several units of one id: u0, u1.*"{column}:id"'):
        keys_of(path)
    assert keys_of(path, key="probe:id") == ("A:u0", "A:u1", "B:u0", "B:u1")


def test_a_probe_that_is_a_reference_is_named_by_its_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", ids=[0, 1, 0, 1])
    with h5py.File(path, "r+") as file:
        made = [file.create_group(f"general/extracellular_ephys/{name}") for name in "AB"]
        references = [made[0].ref, made[0].ref, made[1].ref, made[1].ref]
        file["units"].create_dataset("electrode_group", data=references, dtype=h5py.ref_dtype)
    assert keys_of(path, key="electrode_group:id") == ("A:u0", "A:u1", "B:u0", "B:u1")


def test_row_numbers_are_told_from_ids(tmp_path: Path) -> None:
    rows = read_session(write(tmp_path / "a.nwb"))
    ids = read_session(write(tmp_path / "b.nwb", ids=[4, 5, 9, 11]))
    assert rows.provenance["unit_keys"] == "row numbers"
    assert ids.provenance["unit_keys"] == "id"


def test_units_in_another_table_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb", units_at="processing/ecephys/sorted")
    with pytest.raises(SessionError, match=r'units\.table = "processing/ecephys/sorted"'):
        read_session(path)
    assert len(keys_of(path, table="processing/ecephys/sorted")) == 4
    assert len(keys_of(path, table="sorted")) == 4
    with pytest.raises(SessionError, match=r"no table 'other'; it has: processing/ecephys/sorted"):
        keys_of(path, table="other")


def test_trials_in_another_table_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        add_trials(file, 9, {"split": np.array([b"train", b"train", b"val"] * 3)}, at="reaches")
    assert read_session(path).trials is None
    session = read_session(path, SessionChoice(trials=TrialChoice(table="intervals/reaches")))
    assert trials_where(session, "split == 'val'") == [(6.0, 8.5), (15.0, 17.5), (24.0, 26.5)]
    with pytest.raises(SessionError, match=r"no table 'trails'; it has: .*intervals/reaches"):
        read_session(path, SessionChoice(trials=TrialChoice(table="trails")))


def test_a_session_without_trials_says_so_when_they_are_to_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="has no trials to choose by"):
        trials_where(read_session(write(tmp_path / "a.nwb")), "success")


def with_counts(path: Path, counts: Any) -> Path:
    write(path, units_at="processing/none/units")
    with h5py.File(path, "r+") as file:
        del file["processing/none"]
        add_series(file, "acquisition/binned_spikes", counts, stamps())
    return path


def test_binned_counts_stand_for_units(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(0.4, (len(stamps()), 5))
    path = with_counts(tmp_path / "a.nwb", counts)
    with pytest.raises(SessionError, match="no units with spike times"):
        read_session(path)
    for stamp, later_us in (("start", 20_000), ("end", 0)):
        choice = SessionChoice(
            behavior=("cursor_vel",), counts=CountChoice(series="binned_spikes", stamp=stamp)
        )
        session = read_session(path, choice)
        assert session.unit_keys == ("ch0", "ch1", "ch2", "ch3", "ch4")
        i_bin = np.rint((session.spikes.t_us - later_us) / 20_000).astype(int)
        found = np.zeros_like(counts)
        found[i_bin, session.spikes.unit] = session.spikes.count
        np.testing.assert_array_equal(found, counts)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_rates_and_scores_are_no_counts(tmp_path: Path, value: float) -> None:
    counts = np.ones((len(stamps()), 5))
    counts[7, 2] = value
    path = with_counts(tmp_path / "a.nwb", counts)
    choice = SessionChoice(behavior=("cursor_vel",), counts=CountChoice(series="binned_spikes"))
    with pytest.raises(SessionError, match=f"no counts .*for example {value:g}"):
        read_session(path, choice)
