"""NWB files of many makers become sessions; ours come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import BehavioralTimeSeries, Position, SpatialSeries
from pynwb.file import Subject
from pynwb.image import ImageSeries

from streams.errors import SessionError
from streams.messages import SpikeBatch
from streams.sessions.nwb.series import MAX_VALUES
from streams.sessions.nwb.writer import write_session
from streams.sessions.reading import read_session
from streams.sessions.session import Behavior, Session, Trials

RECORDINGS = Path(__file__).parents[3] / "shared" / "data"


def session_of(
    spikes: list[tuple[int, int, int]], keys: tuple[str, ...] = ("u3", "u0", "u9")
) -> Session:
    t_us, unit, count = np.array(sorted(spikes), np.int64).reshape(-1, 3).T
    t_s = np.array([0.5, 0.51, 0.53])
    return Session(
        id="monkey-J/2026-03-09/centre-out",
        unit_keys=keys,
        spikes=SpikeBatch(t_us, unit.astype(np.int32), count.astype(np.int32)),
        behavior={
            "processing/behavior/Position/hand": Behavior(t_s, np.arange(6.0).reshape(3, 2), "cm"),
            "processing/behavior/emg/muscles": Behavior(t_s, np.full((3, 7), np.nan), "mV"),
            "acquisition/eval_mask": Behavior(t_s, np.ones((3, 1)), "n/a"),
        },
        trials=Trials(
            np.array([0.0, 1.5]),
            np.array([1.25, np.nan]),
            {"target": np.array(["left", "up"]), "angle": np.array([[1.0, 2.0], [3.0, 4.0]])},
        ),
        duration_s=12.5,
        provenance={"code_version": "0.1.0", "seed": "7"},
    )


def assert_equal(one: Session, other: Session) -> None:
    assert (one.id, one.unit_keys, one.duration_s) == (other.id, other.unit_keys, other.duration_s)
    for name in ("t_us", "unit", "count"):
        np.testing.assert_array_equal(getattr(one.spikes, name), getattr(other.spikes, name))
        assert getattr(one.spikes, name).dtype == getattr(other.spikes, name).dtype
    assert set(one.behavior) == set(other.behavior)
    for path, signal in one.behavior.items():
        np.testing.assert_array_equal(signal.t_s, other.behavior[path].t_s)
        np.testing.assert_array_equal(signal.values, other.behavior[path].values)
        assert signal.unit == other.behavior[path].unit
    assert one.trials is not None
    assert other.trials is not None
    np.testing.assert_array_equal(one.trials.start_s, other.trials.start_s)
    np.testing.assert_array_equal(one.trials.stop_s, other.trials.stop_s)
    for name, column in one.trials.columns.items():
        np.testing.assert_array_equal(column, other.trials.columns[name])


@settings(max_examples=15, deadline=None)
@given(
    spikes=st.lists(
        st.tuples(st.integers(-(10**7), 10**10), st.integers(0, 2), st.just(1)), max_size=30
    ),
    keys=st.sampled_from([("u3", "u0", "u9"), ("ch1/u0", "ch1/u1", "ch96/u0"), ("M1-a", "b", "7")]),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    spikes: list[tuple[int, int, int]],
    keys: tuple[str, ...],
) -> None:
    path = tmp_path_factory.mktemp("nwb") / "other_name.nwb"
    session = session_of(spikes, keys)
    write_session(session, path)
    again = read_session(path)
    assert_equal(session, again)
    assert session.provenance.items() <= again.provenance.items()
    assert again.provenance["file"] == "other_name.nwb"


def test_an_entry_of_several_spikes_is_written_as_so_many(tmp_path: Path) -> None:
    write_session(session_of([(40, 1, 3), (50, 0, 1)]), tmp_path / "a.nwb")
    spikes = read_session(tmp_path / "a.nwb").spikes
    assert (spikes.t_us.tolist(), spikes.unit.tolist()) == ([40, 40, 40, 50], [1, 1, 1, 0])


def test_the_same_session_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    for name, spikes in (("a", [(40, 1, 1)]), ("b", [(40, 1, 1)]), ("c", [(41, 1, 1)])):
        write_session(session_of(spikes), tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"id": "no-date"}, "subject/YYYY-MM-DD/name"),
        ({"id": "s/2026-13-40/n"}, "no date"),
        ({"behavior": {"velocity": Behavior(np.zeros(1), np.zeros((1, 1)), "m")}}, "'velocity'"),
        (
            {"behavior": {"processing/x": Behavior(np.zeros(1), np.zeros((1, 1)), "m")}},
            "processing",
        ),
    ],
)
def test_what_has_no_place_in_a_file_is_refused_and_leaves_none(
    tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    whole = session_of([(1, 0, 1)])
    fields = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    with pytest.raises(SessionError, match=text):
        write_session(Session(**(fields | change)), tmp_path / "a.nwb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "n_units", "n_spikes", "n_trials"),
    [
        ("m1_center_out", 171, 2_352_815, 180),
        ("s1_random_target", 52, 842_910, 361),
        ("hippocampus_open_field_1", 49, 97_000, 1),
        ("hippocampus_open_field_2", 37, 65_261, 1),
        ("hippocampus_t_maze", 92, 102_741, 1),
    ],
)
def test_real_recordings_open(name: str, n_units: int, n_spikes: int, n_trials: int) -> None:
    path = RECORDINGS / f"{name}.nwb"
    if not path.exists():
        pytest.skip(f"needs the recordings beside the repository: no {path.name} there")
    session = read_session(path)
    assert (len(session.unit_keys), len(session.spikes)) == (n_units, n_spikes)
    assert session.trials is not None
    assert len(session.trials) == n_trials
    assert session.unit_keys[17] == "u17"
    assert (np.diff(session.spikes.t_us) >= 0).all()
    for kind in ("position", "velocity"):
        signal = session.signal(kind)
        assert signal.values.shape == (len(signal.t_s), 2)
        assert 0.0 <= session.duration_s - signal.t_s[-1] < 2.0
    assert session.id.endswith(f"/2000-01-01/{name}")
    with h5py.File(path) as file:
        first = file["units/spike_times"][: file["units/spike_times_index"][0]]
    ours = session.spikes.t_us[session.spikes.unit == 0]
    np.testing.assert_allclose(ours * 1e-6, np.sort(first), atol=0.6e-6, rtol=0)


def foreign(path: Path, fill: Callable[[NWBFile], None], *, units: bool = True) -> Path:
    nwb = NWBFile(
        session_description="made elsewhere",
        identifier="x",
        session_start_time=datetime(2013, 10, 3, 23, 30, tzinfo=UTC),
        subject=Subject(subject_id="C", species="Macaca mulatta"),
    )
    if units:
        nwb.add_unit(spike_times=[0.3, 0.1, np.nan], id=17)
        nwb.add_unit(spike_times=[0.2, 40.0], id=4)
    fill(nwb)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


def series(name: str, data: Any, **more: Any) -> TimeSeries:
    return TimeSeries(name=name, data=data, unit=more.pop("unit", "cm"), **more)


def test_units_subject_and_date_are_taken_from_the_file(tmp_path: Path) -> None:
    session = read_session(foreign(tmp_path / "sub-C_ses-1.nwb", lambda nwb: None))
    assert session.id == "C/2013-10-03/sub-C_ses-1"
    assert session.unit_keys == ("u17", "u4")
    assert session.spikes.t_us.tolist() == [100_000, 200_000, 300_000, 40_000_000]
    assert session.spikes.unit.tolist() == [0, 1, 0, 1]
    assert session.duration_s == 40.0
    assert session.provenance["species"] == "Macaca mulatta"
    assert "1 spike times that are not finite" in session.provenance["skipped"]
    assert session.trials is None
    assert session.behavior == {}


def fill_containers(nwb: NWBFile) -> None:
    module = nwb.create_processing_module(name="behavior", description="-")
    module.add(
        Position(
            spatial_series=SpatialSeries(
                name="cursor_pos",
                data=np.arange(8.0).reshape(4, 2),
                timestamps=np.array([0.0, 0.01, 0.02, 0.03]),
                reference_frame="screen",
                unit="cm",
            )
        )
    )
    velocity = series("cursor_vel", np.ones((4, 2)), rate=100.0, starting_time=2.0, unit="cm/s")
    module.add(BehavioralTimeSeries(name="Velocity", time_series=velocity))


def test_behaviour_in_containers(tmp_path: Path) -> None:
    session = read_session(foreign(tmp_path / "a.nwb", fill_containers))
    assert set(session.behavior) == {
        "processing/behavior/Position/cursor_pos",
        "processing/behavior/Velocity/cursor_vel",
    }
    velocity = session.signal("cursor_vel")
    np.testing.assert_allclose(velocity.t_s, [2.0, 2.01, 2.02, 2.03])
    assert velocity.unit == "cm/s"
    assert session.signal("cursor_pos").values[3].tolist() == [6.0, 7.0]


def fill_direct(nwb: NWBFile) -> None:
    module = nwb.create_processing_module(name="behavior", description="-")
    t_s = np.array([0.2, 0.1, np.nan, 0.2, 0.4])
    data = np.array([2, 1, 3, 9, 4], np.int16)
    module.add(series("hand_pos", data, timestamps=t_s, conversion=0.001, offset=1.0, unit="m"))


def test_conversion_offset_and_bad_stamps_of_a_plain_series(tmp_path: Path) -> None:
    hand = read_session(foreign(tmp_path / "a.nwb", fill_direct)).signal("hand_pos")
    assert hand.t_s.tolist() == [0.1, 0.2, 0.4]
    np.testing.assert_allclose(hand.values, [[1.001], [1.002], [1.004]])


def fill_falcon(nwb: NWBFile) -> None:
    t_s = np.arange(50) * 0.02
    muscles = [series(m, np.zeros(50), timestamps=t_s, unit="mV") for m in ("Biceps", "FCR")]
    nwb.add_acquisition(BehavioralTimeSeries(name="preprocessed_emg", time_series=muscles))
    nwb.add_acquisition(series("eval_mask", np.ones(50, np.bool_), timestamps=t_s, unit="bool"))
    nwb.add_acquisition(series("OpenLoopKinematics", np.ones((2000, 7)), rate=0.02, offset=0.5))
    nwb.add_trial(start_time=0.0, stop_time=1.0)


def test_behaviour_and_masks_under_acquisition(tmp_path: Path) -> None:
    session = read_session(foreign(tmp_path / "a.nwb", fill_falcon))
    assert session.signal("preprocessed_emg/FCR").unit == "mV"
    assert session.signal("eval_mask").values.sum() == 50.0
    kinematics = session.signal("OpenLoopKinematics")
    np.testing.assert_allclose(kinematics.t_s[[0, 1, -1]], [0.5, 0.52, 0.5 + 1999 * 0.02])
    assert (kinematics.values == 1.0).all()


def fill_useless(nwb: NWBFile) -> None:
    nwb.add_acquisition(ImageSeries(name="video", data=np.zeros((3, 2, 2)), rate=30.0, unit="n"))
    nwb.add_acquisition(series("volume", np.zeros((3, 2, 2)), rate=30.0))
    nwb.add_acquisition(series("words", ["a", "b"], rate=30.0))


def test_what_is_no_behaviour_is_left_out_and_named(tmp_path: Path) -> None:
    session = read_session(foreign(tmp_path / "a.nwb", fill_useless))
    assert session.behavior == {}
    assert "acquisition/volume" in session.provenance["skipped"]
    assert "acquisition/words" in session.provenance["skipped"]


def test_raw_data_are_not_taken_for_behaviour(tmp_path: Path) -> None:
    path = foreign(
        tmp_path / "a.nwb", lambda nwb: nwb.add_acquisition(series("raw", [0.0], rate=1.0))
    )
    with h5py.File(path, "r+") as file:
        group = file["acquisition/raw"]
        attributes = dict(group["data"].attrs)
        del group["data"]
        huge = group.create_dataset("data", shape=(MAX_VALUES + 1,), dtype="f4", chunks=True)
        huge.attrs.update(attributes)
    session = read_session(path)
    assert session.behavior == {}
    assert "acquisition/raw" in session.provenance["skipped"]


def test_a_series_with_too_few_stamps_is_left_out_and_named(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.nwb", fill_direct)
    with h5py.File(path, "r+") as file:
        stamps = file["processing/behavior/hand_pos/timestamps"]
        attributes = dict(stamps.attrs)
        del file["processing/behavior/hand_pos/timestamps"]
        short = file.create_dataset("processing/behavior/hand_pos/timestamps", data=np.zeros(2))
        short.attrs.update(attributes)
    session = read_session(path)
    assert "2 timestamps for 5 samples" in session.provenance["skipped"]


def test_a_file_without_units_says_what_it_has(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.nwb", fill_containers, units=False)
    with pytest.raises(SessionError, match=r"no units.*processing/behavior/Position"):
        read_session(path)


def test_units_of_one_id_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.nwb", lambda nwb: nwb.add_unit(spike_times=[0.5], id=4))
    with pytest.raises(SessionError, match="several units of one id: u4"):
        read_session(path)


def write_nothing(path: Path) -> None:
    path.write_bytes(b"no HDF5")


def write_other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = 1


def write_half(path: Path) -> None:
    write_session(session_of([(i, 0, 1) for i in range(5000)]), path)
    path.write_bytes(path.read_bytes()[:4000])


@pytest.mark.parametrize("write", [write_nothing, write_other_hdf5, write_half])
def test_a_file_that_is_no_nwb_is_refused_by_name(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "broken.nwb")
    with pytest.raises(SessionError, match=r"broken\.nwb cannot be read"):
        read_session(tmp_path / "broken.nwb")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"no file .*nowhere\.nwb"):
        read_session(tmp_path / "nowhere.nwb")
