"""torch_brain's HDF5 recordings, in the layout that its `temporaldata` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from streams.errors import LackingError, SessionError
from streams.sessions.choice import SessionChoice, UnitChoice
from streams.sessions.nwb.writer import write_session
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from tests.decoders.sessions import VELOCITY, tuned_session

NAME = "c_20131003_center_out_reaching.h5"


def interval(parent: h5py.Group, name: str, start: np.ndarray, end: np.ndarray) -> h5py.Group:
    group = parent.create_group(name)
    group.create_dataset("start", data=start)
    group.create_dataset("end", data=end)
    group.attrs["object"] = "Interval"
    group.attrs["timekeys"] = np.array(["start", "end"], dtype="S")
    group.attrs["_unicode_keys"] = np.array([], dtype="S")
    return group


def series(parent: h5py.Group, name: str, t_s: np.ndarray, **arrays: np.ndarray) -> h5py.Group:
    group = parent.create_group(name)
    group.create_dataset("timestamps", data=t_s)
    for key, values in arrays.items():
        group.create_dataset(key, data=values)
    group.create_dataset("timestamp_indices_1s", data=np.searchsorted(t_s, np.arange(t_s[-1] + 1)))
    interval(group, "domain", np.array([t_s[0]]), np.array([t_s[-1]]))
    group.attrs["object"] = "IrregularTimeSeries"
    group.attrs["timekeys"] = np.array(["timestamps"], dtype="S")
    group.attrs["_unicode_keys"] = np.array([], dtype="S")
    return group


def write(path: Path, session: Session) -> None:
    """As brainsets' pipelines leave a session."""
    spikes, velocity = session.spikes, session.behavior[VELOCITY]
    with h5py.File(path, "w") as file:
        file.attrs["object"] = "Data"
        described = {"subject": {"id": "c"}, "session": {"recording_date": "2013-10-03 00:00:00"}}
        for name, told in described.items():
            group = file.create_group(name)
            group.attrs["object"] = "Data"
            group.attrs.update(told)
        order = np.argsort(spikes.t_us, kind="stable")
        series(file, "spikes", spikes.t_us[order] * 1e-6, unit_index=spikes.unit[order])
        units = file.create_group("units")
        units.create_dataset("id", data=np.array(session.unit_keys, dtype="S"))
        units.attrs["object"] = "ArrayDict"
        masks = {"train_mask": np.ones(len(velocity.t_s), bool)}
        values = velocity.values
        series(file, "cursor", velocity.t_s, vel=values, speed=np.hypot(*values.T), **masks)
        assert session.trials is not None
        trials = interval(file, "trials", session.trials.start_s, session.trials.stop_s)
        trials.create_dataset("result", data=np.full(len(session.trials), b"R"))
        interval(file, "domain", np.array([0.0]), np.array([session.duration_s]))


def test_reads_what_was_written(tmp_path: Path) -> None:
    session = tuned_session()
    write(tmp_path / NAME, session)
    read = read_session(tmp_path / NAME)
    assert read.id == "c/2013-10-03/c_20131003_center_out_reaching"
    assert read.unit_keys == session.unit_keys
    order = np.lexsort((session.spikes.unit, session.spikes.t_us))
    np.testing.assert_array_equal(read.spikes.t_us, session.spikes.t_us[order])
    np.testing.assert_array_equal(read.spikes.unit, session.spikes.unit[order])
    assert sorted(read.behavior) == ["cursor/speed", "cursor/vel"]
    assert read.signal("speed").values.shape == (len(read.signal("vel").t_s), 1)
    np.testing.assert_array_equal(read.signal("vel").values, session.behavior[VELOCITY].values)
    assert read.trials is not None
    assert session.trials is not None
    np.testing.assert_array_equal(read.trials.stop_s, session.trials.stop_s)
    assert set(read.trials.columns["result"]) == {"R"}
    assert read.duration_s == pytest.approx(session.duration_s, abs=0.6)


def test_a_regular_series_keeps_its_gaps(tmp_path: Path) -> None:
    """Between the intervals of its domain a series holds filling, not measurements."""
    write(tmp_path / NAME, tuned_session())
    with h5py.File(tmp_path / NAME, "r+") as file:
        group = file.create_group("hand")
        group.create_dataset("pos_2d", data=np.tile(np.arange(100.0)[:, None], 2))
        group.attrs["object"], group.attrs["sampling_rate"] = "RegularTimeSeries", 10.0
        interval(group, "domain", np.array([5.0, 9.0]), np.array([7.0, 15.0]))
    hand = read_session(tmp_path / NAME).signal("hand/pos_2d")
    assert hand.t_s[0] == 5.0
    assert np.isfinite(hand.values[:20]).all()
    assert np.isnan(hand.values[22:40]).all()
    assert np.isnan(hand.at(np.array([8.0]))).all()
    np.testing.assert_allclose(hand.at(np.array([9.55])), 45.5)


def lack_spikes(file: h5py.File) -> None:
    del file["spikes"]


def lack_units(file: h5py.File) -> None:
    del file["units/id"]


def point_beyond_the_units(file: h5py.File) -> None:
    file["spikes/unit_index"][3] = 800


def name_units_twice(file: h5py.File) -> None:
    file["units/id"][1] = file["units/id"][0]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lack_spikes, r"lacks spikes/timestamps; it has: cursor/domain, .*cursor/vel"),
        (lack_units, r"lacks units/id; it has: .*spikes/timestamps"),
        (point_beyond_the_units, r"unit_index runs from 0 to 800, units/id has 8 rows"),
        (name_units_twice, r"several units of one id: u0"),
    ],
)
def test_wrong_files_say_what_is_missing(
    tmp_path: Path, spoil: Callable[[h5py.File], None], text: str
) -> None:
    write(tmp_path / NAME, tuned_session())
    with h5py.File(tmp_path / NAME, "r+") as file:
        spoil(file)
    with pytest.raises(SessionError, match=text):
        read_session(tmp_path / NAME)


def test_other_files_of_that_name_are_told_apart(tmp_path: Path) -> None:
    session = tuned_session()
    write_session(session, tmp_path / "nwb-inside.h5")
    assert read_session(tmp_path / "nwb-inside.h5").id == session.id
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(SessionError, match=r"text\.h5 cannot be read: it is no HDF5"):
        read_session(tmp_path / "text.h5")
    write(tmp_path / NAME, session)
    with pytest.raises(SessionError, match=r"no behaviour 'position'; it has: cursor/speed"):
        read_session(tmp_path / NAME).signal("position")


VEL = SessionChoice(behavior=("cursor/vel",))


def test_a_session_begins_at_its_first_sample(tmp_path: Path) -> None:
    write(tmp_path / NAME, tuned_session())
    plain = read_session(tmp_path / NAME, VEL)
    with h5py.File(tmp_path / NAME, "r+") as file:
        for name in ("spikes/timestamps", "cursor/timestamps", "trials/start", "trials/end"):
            file[name][...] = file[name][:] + 1.6e9
        for edge in ("start", "end"):
            file[f"cursor/domain/{edge}"][...] = file[f"cursor/domain/{edge}"][:] + 1.6e9
    session = read_session(tmp_path / NAME, VEL)
    assert session.duration_s == pytest.approx(plain.duration_s, abs=1e-5)
    assert session.provenance["begins_at_s"] == "1600000000.0"
    np.testing.assert_allclose(session.spikes.t_us, plain.spikes.t_us, atol=2)
    np.testing.assert_allclose(session.signal("vel").t_s, plain.signal("vel").t_s, atol=1e-6)
    assert session.trials is not None
    assert plain.trials is not None
    np.testing.assert_allclose(session.trials.start_s, plain.trials.start_s, atol=1e-6)


def test_only_what_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path / NAME, tuned_session())
    with h5py.File(tmp_path / NAME, "r+") as file:
        file["cursor"].create_dataset("broken", data=np.zeros((5, 2)))
    assert list(read_session(tmp_path / NAME, VEL).behavior) == ["cursor/vel"]
    everything = read_session(tmp_path / NAME)
    assert "cursor/broken has 4000 timestamps for 5 samples" in everything.provenance["skipped"]
    with pytest.raises(LackingError, match="no behaviour 'force'; it has: cursor/broken, cursor/s"):
        read_session(tmp_path / NAME, SessionChoice(behavior=("force",)))


def test_a_mask_and_a_choice_of_units(tmp_path: Path) -> None:
    write(tmp_path / NAME, tuned_session())
    with h5py.File(tmp_path / NAME, "r+") as file:
        mask = file["cursor/timestamps"][:] < 20.0
        file["cursor"].create_dataset("eval_mask", data=mask)
        quality = [b"good", b"bad"] * 4
        file["units"].create_dataset("quality", data=quality)
        file["units"].create_dataset("probe", data=[b"A"] * 4 + [b"B"] * 4)
    units = UnitChoice(where="quality == 'good'", key="probe:id")
    session = read_session(
        tmp_path / NAME,
        SessionChoice(behavior=("cursor/vel",), mask="cursor/eval_mask", units=units),
    )
    assert session.unit_keys == ("A:u0", "A:u2", "B:u4", "B:u6")
    plain = read_session(tmp_path / NAME, VEL)
    ours = session.spikes.t_us[session.spikes.unit == 2]
    np.testing.assert_array_equal(ours, plain.spikes.t_us[plain.spikes.unit == 4])
    velocity = session.signal("cursor/vel")
    known = np.isfinite(velocity.at(velocity.t_s)).all(axis=1)
    np.testing.assert_array_equal(known, mask)


def test_times_in_milliseconds_are_named_and_read(tmp_path: Path) -> None:
    write(tmp_path / NAME, tuned_session())
    plain = read_session(tmp_path / NAME, VEL)
    with h5py.File(tmp_path / NAME, "r+") as file:
        file["spikes/timestamps"][...] = file["spikes/timestamps"][:] * 1000.0
    with pytest.raises(SessionError, match=r"milliseconds.*units\.ticks_per_s = 1000"):
        read_session(tmp_path / NAME, VEL)
    units = UnitChoice(ticks_per_s=1000.0)
    session = read_session(tmp_path / NAME, SessionChoice(behavior=("cursor/vel",), units=units))
    np.testing.assert_array_equal(session.spikes.t_us, plain.spikes.t_us)
