"""FALCON's files become the counts that its evaluator makes of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SessionError
from streams.sessions.falcon import bin_starts, count_in_bins, falcon_task, read_falcon
from streams.sessions.session import Session
from tests.calibration.falcon_files import DIMS, N_UNITS, write_h1, write_m1, write_m2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each task; M2's has a gap."""
    folder = tmp_path_factory.mktemp("falcon")
    return {
        "m1": write_m1(folder, "20120924", 1),
        "m2": write_m2(folder, "20201019", 2, 2),
        "h1": write_h1(folder, "19250101T111740", 3),
    }


def counts_of(session: Session) -> np.ndarray:
    """(n_bins, n_units)."""
    spikes = session.spikes
    assert (spikes.t_us % 20_000 == 0).all()
    counts = np.zeros((round(session.duration_s / 0.02), len(session.unit_keys)), np.int64)
    np.add.at(counts, (spikes.t_us // 20_000 - 1, spikes.unit), spikes.count)
    return counts


@pytest.mark.parametrize("task", ["m1", "m2", "h1"])
def test_counts_targets_and_mask_are_the_evaluators(files: dict[str, Path], task: str) -> None:
    config = pytest.importorskip("falcon_challenge.config", reason="the extra `falcon` is absent")
    from falcon_challenge.dataloaders import load_nwb

    counts, targets, _, mask = load_nwb(files[task], config.FalconTask[task])
    session = read_falcon(files[task], falcon_task(task))
    signal = session.signal(falcon_task(task).behavior)
    np.testing.assert_array_equal(counts_of(session), counts)
    np.testing.assert_array_equal(signal.values, targets)
    np.testing.assert_array_equal(signal.masked_in, mask)


@pytest.mark.parametrize("task", ["m1", "m2", "h1"])
def test_a_sample_stands_at_the_end_of_its_bin(files: dict[str, Path], task: str) -> None:
    session = read_falcon(files[task], falcon_task(task))
    signal = session.signal(falcon_task(task).behavior)
    ends_s = np.arange(1, len(signal.t_s) + 1) * 20_000 * 1e-6
    known = np.asarray(signal.masked_in)
    np.testing.assert_array_equal(signal.at(ends_s)[known], signal.values[known])
    assert np.isnan(signal.at(ends_s)[~known]).all()
    assert known.any()
    assert not known.all()
    assert signal.values.shape[1] == DIMS[task]
    assert session.unit_keys == tuple(f"u{i}" for i in range(N_UNITS))
    assert len(session.spikes) > 1000


@given(
    st.lists(st.sampled_from([0.02, 0.02, 0.02, 0.013, 0.02 + 1e-12, 0.021, 0.9]), max_size=12),
    st.lists(st.integers(-40, 1500), max_size=60),
)
def test_bins_hold_what_the_benchmark_counts(gaps: list[float], at_ms: list[int]) -> None:
    ends_s = 0.1 + np.concatenate([[0.0], np.cumsum(gaps)])
    t_s = np.array(at_ms) / 1000
    counted = count_in_bins(t_s, bin_starts(ends_s), ends_s)
    edges = [ends_s[0] - 0.02, ends_s[0]]
    kept = [True]
    for before, end in pairwise(ends_s):
        if end - before > 0.02 and not np.isclose(end - before, 0.02):
            edges.append(end - 0.02)
            kept.append(False)
        edges.append(end)
        kept.append(True)
    expected = np.histogram(t_s, bins=np.array(edges))[0][kept]
    np.testing.assert_array_equal(counted, expected)


def without(path: Path, place: str, out: Path) -> Path:
    out.write_bytes(path.read_bytes())
    with h5py.File(out, "a") as file:
        del file[place]
    return out


@pytest.mark.parametrize(
    ("task", "place"),
    [
        ("m1", "acquisition/eval_mask"),
        ("m2", "acquisition/finger_vel"),
        ("h1", "acquisition/OpenLoopKinematics"),
        ("m1", "units"),
    ],
)
def test_what_a_file_lacks_is_named(
    files: dict[str, Path], task: str, place: str, tmp_path: Path
) -> None:
    broken = without(files[task], place, tmp_path / files[task].name)
    with pytest.raises(SessionError, match=rf"has no {place}"):
        read_falcon(broken, falcon_task(task))


def test_files_of_another_task_or_none_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"has no acquisition/preprocessed_emg"):
        read_falcon(files["m2"], falcon_task("m1"))
    with pytest.raises(SessionError, match="no file"):
        read_falcon(tmp_path / "absent.nwb", falcon_task("m1"))
    (tmp_path / "text.nwb").write_text("no HDF5")
    with pytest.raises(SessionError, match=r"text\.nwb cannot be read"):
        read_falcon(tmp_path / "text.nwb", falcon_task("m1"))


def test_lengths_times_and_units_of_time_that_cannot_be_are_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    def changed(place: str, values: object) -> Path:
        path = tmp_path / f"{place.replace('/', '-')}.nwb"
        path.write_bytes(files["m1"].read_bytes())
        with h5py.File(path, "a") as file:
            del file[place]
            file[place] = values
        return path

    task = falcon_task("m1")
    with pytest.raises(SessionError, match="eval_mask 10 values, which do not fit"):
        read_falcon(changed("acquisition/eval_mask/data", np.ones(10, bool)), task)
    emg = "acquisition/preprocessed_emg/OPP/timestamps"
    with pytest.raises(SessionError, match="different timestamps"):
        read_falcon(changed(emg, np.arange(1195) * 0.02), task)
    with h5py.File(files["m1"]) as file:
        spikes = file["units/spike_times"][:]
    with pytest.raises(SessionError, match="are the spike times in seconds"):
        read_falcon(changed("units/spike_times", spikes * 30_000), task)


def test_a_rate_that_is_one_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "h1.nwb"
    path.write_bytes(files["h1"].read_bytes())
    with h5py.File(path, "a") as file:
        file["acquisition/OpenLoopKinematics/starting_time"].attrs["rate"] = 50.0
    with pytest.raises(SessionError, match=r"is 50, where FALCON's files hold the step"):
        read_falcon(path, falcon_task("h1"))


def test_tasks_that_are_not_movement_are_refused() -> None:
    with pytest.raises(SessionError, match=r"h2 cannot be decoded: .* sentence"):
        falcon_task("h2")
    with pytest.raises(SessionError, match=r"b1 cannot be decoded: .* spectrogram"):
        falcon_task("b1")
    with pytest.raises(SessionError, match=r"no task 'M1'; those read are m1, m2, h1"):
        falcon_task("M1")
