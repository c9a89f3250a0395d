"""Files that cannot be read: one sentence on what each is, and what to do."""

from __future__ import annotations

import fcntl
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from streams.errors import LackingError, SessionError
from streams.sessions.choice import SessionChoice, TrialChoice
from streams.sessions.reading import read_session
from tests.fuzz.sentences import check_refusal
from tests.streams.foreign_nwb import add_series, stamps, wave, write

VELOCITY = SessionChoice(behavior=("cursor_vel",))


def as_zarr(path: Path) -> None:
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')


def as_zarr_3(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')


def as_folder(path: Path) -> None:
    path.mkdir()


def as_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 1234\n")


def as_annex_pointer(path: Path) -> None:
    path.write_text("/annex/objects/SHA256E-s21487462--4d7a.nwb\n")


def as_annex_link(path: Path) -> None:
    path.symlink_to(".git/annex/objects/Xx/Yy/SHA256E-s21--4d7a.nwb/SHA256E-s21--4d7a.nwb")


def as_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(write(path.with_suffix(".tmp")).read_bytes()))


def as_login_page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><html><body>Please log in</body></html>")


def as_nothing(path: Path) -> None:
    path.touch()


def as_text(path: Path) -> None:
    path.write_text("t,x,y\n0,1,2\n")


def cut_short(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:20_000])


def with_damaged_head(path: Path) -> None:
    content = bytearray(write(path).read_bytes())
    content[8:40] = b"\xff" * 32
    path.write_bytes(bytes(content))


def as_nwb_1(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["nwb_version"] = "NWB-1.0.6"
        file.create_group("processing/Units")


def as_nwb_1_attribute(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = np.bytes_(b"1.0.5_beta")


def as_other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["traces"] = np.zeros(3)


def as_torch_brain(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("spikes")
        file.create_group("units")


@pytest.mark.parametrize(
    ("make", "what", "remedy"),
    [
        (as_zarr, "is a Zarr store", "hdmf-zarr"),
        (as_zarr_3, "is a Zarr store", "hdmf-zarr"),
        (as_folder, "is a folder", "give the path of an NWB file"),
        (as_lfs_pointer, "is a Git LFS pointer", "git lfs pull"),
        (as_annex_pointer, "is a git-annex pointer", "datalad get"),
        (as_annex_link, "is a link to .*annex.*not there", "datalad get"),
        (as_gzip, "compressed by gzip", "unpack"),
        (as_login_page, "is a web page", "download it again"),
        (as_nothing, "is empty", "download it again"),
        (as_text, "is no HDF5 .*t,x,y", "give an NWB 2.x file"),
        (cut_short, r"is cut short, 20000 of \d+ bytes", "download it again"),
        (with_damaged_head, "is damaged", "download it again"),
        (as_nwb_1, r"is NWB 1\.0\.6", "convert it with pynwb"),
        (as_nwb_1_attribute, r"is NWB 1\.0\.5", "convert it with pynwb"),
        (as_other_hdf5, "HDF5 without an nwb_version; it has: traces", "nwb_version"),
        (as_torch_brain, "without an nwb_version", r"must be named \.h5"),
    ],
)
def test_a_file_that_is_something_else_is_called_by_its_name(
    tmp_path: Path, make: Callable[[Path], None], what: str, remedy: str
) -> None:
    path = tmp_path / "a.nwb"
    make(path)
    with pytest.raises(SessionError, match=what) as raised:
        read_session(path)
    text = str(raised.value)
    assert str(path) in text
    assert remedy.replace("\\", "") in text
    assert "\n" not in text


def replace_data(path: Path, place: str, data: np.ndarray, **how: object) -> None:
    with h5py.File(path, "r+") as file:
        attributes = dict(file[place].attrs)
        del file[place]
        made = file.create_dataset(place, data=data, **how)
        made.attrs.update(attributes)


def with_filter(path: Path, place: str, code: int, name: bytes) -> None:
    """Write data with a filter that is there, and say in the file that it was another one."""
    with h5py.File(path, "r") as file:
        data = file[place][()]
    replace_data(path, place, data, chunks=data.shape, shuffle=True, fletcher32=True)
    content = path.read_bytes()
    # The message of the filter pipeline: id 2 (shuffle), the length of its name, flags, values.
    old = bytes([2, 0, 8, 0, 1, 0, 1, 0]) + b"shuffle\x00"
    new = code.to_bytes(2, "little") + bytes([8, 0, 0, 0, 1, 0]) + name.ljust(8, b"\x00")
    assert old in content
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("code", "name"),
    [(32015, "Zstandard"), (32001, "Blosc"), (32026, "Blosc2"), (32004, "LZ4"), (32999, "mine")],
)
@pytest.mark.parametrize("place", ["processing/behavior/cursor_vel/data", "units/spike_times"])
def test_compression_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, name: str, place: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    path = write(tmp_path / "a.nwb")
    with_filter(path, place, code, b"mine")
    expected = rf"/{place} is compressed by {name} \(HDF5 filter {code}\).*pip install hdf5plugin"
    with pytest.raises(SessionError, match=expected):
        read_session(path, VELOCITY)


def test_compression_of_what_is_not_asked_for_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        add_series(file, "acquisition/raw", wave(stamps()), stamps())
    with_filter(path, "acquisition/raw/data", 32015, b"zstd")
    assert len(read_session(path, VELOCITY).behavior) == 1
    assert "Zstandard" in read_session(path).provenance["skipped"]


def test_gzip_and_lzf_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    replace_data(
        path, "processing/behavior/cursor_vel/data", wave(stamps()), compression="lzf", shuffle=True
    )
    signal = read_session(path, VELOCITY).signal("cursor_vel")
    np.testing.assert_array_equal(signal.values, wave(stamps()))


def test_data_that_are_damaged_inside_the_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    place = "processing/behavior/cursor_vel/data"
    replace_data(path, place, wave(stamps()), chunks=(1500, 2), fletcher32=True)
    with h5py.File(path, "r") as file:
        at = file[place].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 100 : at + 200] = b"\x55" * 100
    path.write_bytes(bytes(content))
    with pytest.raises(SessionError, match=r"cursor_vel/data cannot be read, the file is damaged"):
        read_session(path, VELOCITY)


def test_a_broken_external_link_is_named_with_its_target(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["processing/behavior/cursor_vel"]
        file["processing/behavior/cursor_vel"] = h5py.ExternalLink("behaviour.h5", "/cursor")
    expected = "cursor_vel is a link to /cursor in the file behaviour.h5.*put that file beside"
    with pytest.raises(SessionError, match=expected):
        read_session(path, VELOCITY)


def test_a_link_into_a_file_that_lacks_its_target_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(tmp_path / "behaviour.h5", "w") as beside, h5py.File(path, "r+") as file:
        beside["other"] = 1
        del file["processing/behavior/cursor_vel"]
        file["processing/behavior/cursor_vel"] = h5py.ExternalLink("behaviour.h5", "/cursor")
    with pytest.raises(SessionError, match=r"behaviour\.h5, which is not in it"):
        read_session(path, VELOCITY)


@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_data_in_other_files_that_are_missing_are_not_read_as_zeros(
    tmp_path: Path, kind: str
) -> None:
    path, shape = write(tmp_path / "a.nwb"), (len(stamps()), 2)
    place = "processing/behavior/cursor_vel/data"
    with h5py.File(path, "r+") as file:
        del file[place]
        if kind == "virtual":
            layout = h5py.VirtualLayout(shape, "f8")
            layout[:] = h5py.VirtualSource("part.h5", "data", shape)
            file.create_virtual_dataset(place, layout)
        else:
            file.create_dataset(place, shape, "f8", external=[("part.h5", 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(SessionError, match=r"cursor_vel/data lies in other files.*part\.h5"):
        read_session(path, VELOCITY)
    if kind == "virtual":
        with h5py.File(tmp_path / "part.h5", "w") as file:
            file["data"] = wave(stamps())
        values = read_session(path, VELOCITY).signal("cursor_vel").values
        np.testing.assert_array_equal(values, wave(stamps()))


def test_a_file_whose_writer_crashed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["nwb_version"] = "2.7.0"
    with h5py.File(path, "r+", libver="latest") as file:
        file.swmr_mode = True
        file.flush()
        as_left = path.read_bytes()
    path.write_bytes(as_left)
    with pytest.raises(SessionError, match=r"has not closed it, or crashed.*h5clear"):
        read_session(path)


def test_an_external_link_that_holds_is_followed(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a.nwb"), tmp_path / "behaviour.h5"
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as beside:
        file.copy("processing/behavior/cursor_vel", beside, "cursor")
        del file["processing/behavior/cursor_vel"]
        file["processing/behavior/cursor_vel"] = h5py.ExternalLink("behaviour.h5", "/cursor")
    assert len(read_session(path, VELOCITY).signal("cursor_vel").t_s) == len(stamps())


def test_stamps_that_link_to_nothing_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["processing/behavior/cursor_vel/timestamps"]
        file["processing/behavior/cursor_vel/timestamps"] = h5py.SoftLink("/gone")
    with pytest.raises(
        SessionError, match="timestamps is a link to /gone, which this file does not"
    ):
        read_session(path, VELOCITY)


def test_units_behind_a_broken_link_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["units"]
        file["units"] = h5py.ExternalLink("sorting.nwb", "/units")
    with pytest.raises(SessionError, match=r"a\.nwb: /units is a link.*sorting\.nwb"):
        read_session(path, VELOCITY)


def test_behaviour_behind_a_module_that_is_a_broken_link_is_not_called_absent(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["processing/behavior"]
        file["processing/behavior"] = h5py.ExternalLink("behaviour.nwb", "/processing/behavior")
    with pytest.raises(
        SessionError, match=r"processing/behavior is a link.*behaviour\.nwb"
    ) as told:
        read_session(path, VELOCITY)
    assert not isinstance(told.value, LackingError)


def test_trials_that_nobody_named_and_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        file["intervals/trials"] = h5py.SoftLink("/gone")
    session = read_session(path, VELOCITY)
    assert session.trials is None
    assert "/intervals/trials is a link to /gone" in session.provenance["skipped"]
    with pytest.raises(SessionError, match="is a link to /gone"):
        read_session(
            path,
            SessionChoice(behavior=("cursor_vel",), trials=TrialChoice(table="intervals/trials")),
        )


def test_spike_times_without_their_index_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["units/spike_times_index"]
    with pytest.raises(
        SessionError, match=r"spike_times of \(1200,\) for 4 units and no spike_times"
    ):
        read_session(path, VELOCITY)


def test_an_extension_that_is_not_installed_does_no_harm(tmp_path: Path) -> None:
    """Neither its types nor its specification are needed to read spikes and behaviour."""
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        lab = file.create_group("general/lab_meta_data/rig")
        lab.attrs["namespace"], lab.attrs["neurodata_type"] = "ndx-unheard-of", "Rig"
        file["processing/behavior/cursor_vel"].attrs["namespace"] = "ndx-unheard-of"
        file["processing/behavior/cursor_vel"].attrs["neurodata_type"] = "CursorSeries"
        file["units"].attrs["namespace"] = "ndx-unheard-of"
    assert len(read_session(path, VELOCITY).unit_keys) == 4


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([300, 600, 500, 1200], "does not fit"),
        ([1, 2, 3], "does not fit"),
        ([9, 99, 999, 9999], "ends at 9999"),
    ],
)
def test_an_index_that_cannot_be_is_named(tmp_path: Path, ends: list[int], text: str) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        del file["units/spike_times_index"]
        file["units/spike_times_index"] = ends
    with pytest.raises(SessionError, match=f"units/spike_times_index {text}"):
        read_session(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    path.chmod(0)
    with pytest.raises(SessionError, match="may not read it"):
        read_session(path)


def test_a_file_that_is_still_written_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with path.open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(SessionError, match=r"is locked.*close that program"):
            read_session(path)


@pytest.mark.parametrize("conversion", [np.inf, 1e308, np.nan])
def test_a_damaged_conversion_ends_in_no_warning(tmp_path: Path, conversion: float) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        data = file["processing/behavior/cursor_vel/data"]
        data[:10] = 0.0
        data[10:20] = 1e10
        data.attrs["conversion"] = conversion
    check_refusal(
        lambda: read_session(path, VELOCITY), SessionError
    )  # values that are not finite are missing ones


def test_stamps_that_are_no_numbers_end_in_no_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "r+") as file:
        held = file["processing/behavior/cursor_vel/timestamps"]
        held[:5] = np.full(5, 0x7FF0000000000001, np.uint64).view(np.float64)  # signalling NaN
    check_refusal(lambda: read_session(path, VELOCITY), SessionError)
