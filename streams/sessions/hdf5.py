"""HDF5 files opened, or one sentence on why they cannot be and what to do."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from streams.errors import SessionError

ZARR = (".zgroup", ".zattrs", ".zmetadata", "zarr.json")
BEGINNINGS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the recording: run `git lfs pull` "
    "in its repository",
    b"/annex/objects/": "it is a git-annex pointer, not the recording: run `datalad get` or "
    "`git annex get` on it",
    b"../": "it is a git-annex pointer, not the recording: run `datalad get` or `git annex get`",
    b"\x1f\x8b": "it is compressed by gzip: unpack it first",
    b"PK\x03\x04": "it is a zip archive: unpack it first (a zipped Zarr store must be exported to "
    "HDF5 by pynwb)",
    b"MATLAB 5": "it is a MATLAB file, not NWB: convert it with MatNWB or pynwb",
    b"XDF:": "it is an XDF file: turn it into NWB with `spikeloop convert`",
    b"<": "it is a web page or XML, not the recording: download it again, perhaps after a login",
    b"{": "it is JSON text, not the recording: download the asset itself",
}
FILTERS = {
    4: "SZIP",
    307: "bzip2",
    32000: "lzf",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32026: "Blosc2",
}


UNREADABLE = (
    AttributeError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors that h5py and numpy raise on damaged or odd files."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file to read; what HDF5 cannot read while it is open is refused too.

    Raises:
        SessionError: there is none, or it is no HDF5; the text says what it is instead.
    """
    if path.is_dir():
        raise SessionError(f"{path} cannot be read: {_folder(path)}")
    if not path.exists():
        raise SessionError(_absent(path))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SessionError(f"{path} cannot be read: {_why(path, error)}") from error
    try:
        with file:
            yield file
    except UNREADABLE as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise SessionError(
            f"{path} cannot be read: it is damaged, or not laid out as its kind is ({lines[0]}): "
            "copy or download it again, or ask its makers"
        ) from error


def _folder(path: Path) -> str:
    if any((path / name).exists() for name in ZARR):
        return (
            "it is a Zarr store; export it to HDF5 with hdmf-zarr (NWBZarrIO to read, pynwb's "
            "NWBHDF5IO to export) and give that file"
        )
    return "it is a folder: give the path of an NWB file"


def _absent(path: Path) -> str:
    if path.is_symlink():
        return (
            f"{path} is a link to {path.readlink()}, which is not there: "
            "get the content with `datalad get` or `git annex get`, or mend the link"
        )
    return f"no file {path}: give the path of an NWB file"


def _why(path: Path, error: OSError) -> str:
    text = str(error)
    if isinstance(error, PermissionError):
        return "you may not read it: ask for the permission (chmod, chown)"
    if "unable to lock" in text:
        return (
            "it is locked, perhaps because a program still writes it: close that program, or set "
            "HDF5_USE_FILE_LOCKING=FALSE where the file system has no locks"
        )
    if "h5clear" in text:
        return (
            "the program that wrote it has not closed it, or crashed: close that program, else "
            "mend a copy by `h5clear -s COPY`"
        )
    lengths = re.search(r"eof = (\d+).*stored_eof = (\d+)", text)
    if lengths:
        return f"it is cut short, {lengths[1]} of {lengths[2]} bytes: copy or download it again"
    return _by_beginning(path)


def _by_beginning(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty: copy or download it again"
    for beginning, text in BEGINNINGS.items():
        if head.lstrip().startswith(beginning):
            return text
    if head.startswith(b"\x89HDF"):
        return "its HDF5 structure is damaged: copy or download it again"
    return f"it is no HDF5 (it begins with {head[:16]!r}): give an NWB 2.x file"


def require_nwb2(file: h5py.File, path: Path) -> None:
    """Refuse HDF5 files that are not NWB 2.x.

    Raises:
        SessionError: what the file is instead.
    """
    if "nwb_version" in file.attrs:
        version = text_of(file.attrs["nwb_version"])
    elif isinstance(file.get("nwb_version"), h5py.Dataset):
        version = text_of(np.ravel(file["nwb_version"][()])[0])
    else:
        have = ", ".join(sorted(file)[:12]) or "nothing"
        hint = ""
        if {"spikes", "units"} <= set(file):
            hint = "; a recording of torch_brain must be named .h5 or .hdf5"
        raise SessionError(
            f"{path} cannot be read as NWB: it is HDF5 without an nwb_version; it has: {have}{hint}"
        )
    if re.match(r"(NWB-)?[01]\.", version):
        raise SessionError(
            f"{path} cannot be read: it is NWB {version.removeprefix('NWB-')}, and only 2.x is "
            "read; look for the data set's newer version (DANDI has 2.x) or convert it with pynwb"
        )


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Look up a name in a group; None where it holds nothing.

    Raises:
        SessionError: a link whose target is missing or cannot be opened.
    """
    link = group.get(name, getlink=True)
    if link is None:
        return None
    try:
        return group[name]
    except (KeyError, OSError) as error:
        where = f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
        if isinstance(link, h5py.ExternalLink):
            there = (Path(group.file.filename).parent / link.filename).exists()
            why = (
                "which is not in it or cannot be read: get that file anew"
                if there
                else "which is not there: put that file beside this one"
            )
            raise SessionError(
                f"{where} is a link to {link.path} in the file {link.filename}, {why}"
            ) from error
        if isinstance(link, h5py.SoftLink):
            raise SessionError(
                f"{where} is a link to {link.path}, which this file does not have: "
                "ask its makers for a whole one"
            ) from error
        raise SessionError(f"{where} is damaged: copy or download the file again") from error


def member_at(file: h5py.File, place: str) -> h5py.Group | h5py.Dataset | None:
    """Look up a path; None where nothing is; see `member`."""
    item: h5py.Group | h5py.Dataset | None = file
    for part in place.split("/"):
        if not isinstance(item, h5py.Group):
            return None
        item = member(item, part)
    return item


def values_of(data: h5py.Dataset) -> np.ndarray:
    """Everything that a dataset holds.

    Raises:
        SessionError: its compression is not installed, or the file is damaged there.
    """
    require_filters(data)
    _require_sources(data)
    try:
        held: np.ndarray = np.asarray(data[()])
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise SessionError(
            f"{data.file.filename}: {data.name} cannot be read, the file is damaged there or holds "
            f"an unknown kind of value ({str(error).splitlines()[0]}): copy or download it again"
        ) from error
    return held


def _require_sources(data: h5py.Dataset) -> None:
    """Refuse data that lie in other files where those are missing: HDF5 gives zeros for them."""
    names = [name for name, _, _ in data.external or ()]
    if data.is_virtual:
        names += [source.file_name for source in data.virtual_sources()]
    folder = Path(data.file.filename).parent
    missing = [
        name for name in dict.fromkeys(names) if name != "." and not (folder / name).exists()
    ]
    if missing:
        raise SessionError(
            f"{data.file.filename}: {data.name} lies in other files, of which "
            f"{', '.join(missing[:5])} are not there: put them beside this one"
        )


def require_filters(data: h5py.Dataset) -> None:
    """Load the plugins that a dataset's compression needs.

    Raises:
        SessionError: they are not installed.
    """
    made = data.id.get_create_plist()
    told = [made.get_filter(i) for i in range(made.get_nfilters())]
    missing = [one for one in told if not h5py.h5z.filter_avail(one[0])]
    if missing:
        with suppress(ImportError):
            importlib.import_module("hdf5plugin")
        missing = [one for one in told if not h5py.h5z.filter_avail(one[0])]
    if missing:
        names = ", ".join(FILTERS.get(code) or text_of(name) or "?" for code, _, _, name in missing)
        codes = ", ".join(str(one[0]) for one in missing)
        raise SessionError(
            f"{data.file.filename}: {data.name} is compressed by {names} (HDF5 filter {codes}), "
            "which is not installed: `pip install hdf5plugin`, or repack the file with gzip"
        )


def text_of(value: object) -> str:
    """Return an HDF5 text, which may be bytes, as `str`."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
