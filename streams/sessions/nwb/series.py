"""Behavioural series in an NWB file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from streams.errors import LackingError, SessionError
from streams.messages import Float64s
from streams.sessions.hdf5 import member, member_at, text_of, values_of
from streams.sessions.session import Behavior, chosen_series

MAX_VALUES = 50_000_000
"""A longer signal is raw data that somebody stored as a plain series, not behaviour."""
NEURAL = (
    "ElectricalSeries",
    "SpikeEventSeries",
    "DecompositionSeries",
    "ImageSeries",
    "ImageMaskSeries",
    "OpticalSeries",
    "IndexSeries",
    "TwoPhotonSeries",
    "OnePhotonSeries",
    "WidefieldSeries",
    "RoiResponseSeries",
    "PatchClampSeries",
    "CurrentClampSeries",
    "CurrentClampStimulusSeries",
    "IZeroClampSeries",
    "VoltageClampSeries",
    "VoltageClampStimulusSeries",
)
WIDEST = 1000
"""More columns than this, and than samples, are samples that lie along the wrong axis."""


@dataclass(slots=True)
class SeriesReader:
    """Reads one file's series.

    Attributes:
        file: open.
        path: the file's, for messages.
        spikes_s: how long the spikes last, to understand FALCON's H1 files.
        ticks_per_s: how much time stamps grow in a second.
        notes: what was left out or mended.
    """

    file: h5py.File
    path: Path
    spikes_s: float = 0.0
    ticks_per_s: float = 1.0
    notes: list[str] = field(default_factory=list)

    def named(self, names: Sequence[str]) -> dict[str, Behavior]:
        """The series that are named, and no other.

        Raises:
            LackingError: one is not there; the text lists those that are.
            SessionError: one cannot be used, or a name means several; the text says why.
        """
        paths, found = list(self.paths()), {}
        for name in names:
            for path in self._chosen(name, paths):
                found[path] = self.one(path)
        return found

    def _chosen(self, name: str, paths: Sequence[str]) -> list[str]:
        try:
            return chosen_series(name, paths, str(self.path))
        except LackingError as error:
            # Behind a link that leads nowhere it may well have been.
            for place in ("processing", *places_of(self.file)):
                member_at(self.file, place)
            raise error

    def every(self) -> dict[str, Behavior]:
        """Every series that can be read; the others are noted."""
        found = {}
        for path in self.paths():
            try:
                found[path] = self.one(path)
            except SessionError as error:
                text = str(error).removeprefix(f"{self.path}: ").removeprefix(path).strip()
                self.notes.append(f"{path} ({text})")
        return found

    def paths(self) -> Iterator[str]:
        """Walk every series that is neither neural nor an image; no values are read."""
        for place in places_of(self.file):
            group = self.file.get(place)
            for name in group if isinstance(group, h5py.Group) else ():
                yield from self._paths_in(group, name, f"{place}/{name}", deeper=True)

    def _paths_in(self, group: h5py.Group, name: str, path: str, *, deeper: bool) -> Iterator[str]:
        try:
            item = member(group, name)
        except SessionError:
            yield path
            return
        if not isinstance(item, h5py.Group):
            return
        kind = text_of(item.attrs.get("neurodata_type", ""))
        if kind in NEURAL:
            return
        if item.get("data", getlink=True) is not None:
            yield path
        elif deeper:
            for inner in item:
                yield from self._paths_in(item, inner, f"{path}/{inner}", deeper=False)

    def one(self, path: str) -> Behavior:
        """One series.

        Raises:
            SessionError: it cannot be used; the text says why.
        """
        place, _, name = path.rpartition("/")
        group = member(self.file[place], name)
        data = member(group, "data") if isinstance(group, h5py.Group) else None
        if not isinstance(data, h5py.Dataset) or not isinstance(group, h5py.Group):
            raise self._refusal(path, "has no data")
        if data.ndim not in (1, 2) or data.dtype.kind not in "iufb":
            raise self._refusal(path, f"is not numbers over time: {data.dtype} of {data.shape}")
        if data.size > MAX_VALUES:
            raise self._refusal(path, f"has {data.shape} values: too long for behaviour")
        t, data_offset = self._times(group, data, path)
        values = np.asarray(values_of(data), np.float64).reshape(len(data), -1)
        if data.dtype.kind != "b":
            values = values * float(data.attrs.get("conversion", 1.0)) + data_offset
        return self._in_order(path, t, values, text_of(data.attrs.get("unit", "")))

    def _times(self, group: h5py.Group, data: h5py.Dataset, path: str) -> tuple[Float64s, float]:
        """Stamps in seconds, and what to add to the data."""
        offset = float(data.attrs.get("offset", 0.0))
        stamps = member(group, "timestamps")
        if isinstance(stamps, h5py.Dataset):
            self._require_lengths(path, data.shape, stamps.shape)
            return np.asarray(values_of(stamps), np.float64) / self.ticks_per_s, offset
        start = member(group, "starting_time")
        rate_hz = float(start.attrs.get("rate", 0.0)) if isinstance(start, h5py.Dataset) else 0.0
        if not (rate_hz > 0 and np.isfinite(rate_hz)):
            raise self._refusal(path, "has neither timestamps nor a rate")
        if data.ndim == 2 and data.shape[1] > max(WIDEST, data.shape[0]):
            raise self._refusal(path, f"has data of {data.shape}: is time the second axis?")
        start_s = float(values_of(start)) / self.ticks_per_s
        return self._regular(start_s, rate_hz * self.ticks_per_s, offset, len(data))

    def _regular(
        self, start_s: float, rate_hz: float, offset: float, n: int
    ) -> tuple[Float64s, float]:
        """FALCON's H1 files hold the *step* in `rate` and the start in the data's `offset`.

        Taken at its word such a signal would outlast the spikes a thousandfold; understood like
        this it ends with them.
        """
        step_s = 1.0 / rate_hz
        if rate_hz < 1.0 and self.spikes_s > 0.0 and n * step_s > 50.0 * self.spikes_s:
            ends_s = (start_s or offset) + n * rate_hz
            if abs(ends_s - self.spikes_s) < 0.1 * self.spikes_s:
                start_s, offset, step_s = start_s or offset, 0.0, rate_hz
        return np.asarray(start_s + np.arange(n) * step_s, np.float64), offset

    def _require_lengths(self, path: str, data: tuple[int, ...], stamps: tuple[int, ...]) -> None:
        if len(stamps) == 1 and stamps[0] == data[0]:
            return
        turned = len(stamps) == 1 and len(data) == 2 and data[1] == stamps[0]
        why = "the data lie transposed, time must be the first axis" if turned else "one is cut"
        raise self._refusal(
            path,
            f"has {stamps[0] if len(stamps) == 1 else stamps} timestamps for {data[0]} samples "
            f"(data of {data}): {why}; it must be written again",
        )

    def _in_order(self, path: str, t_s: Float64s, values: Float64s, unit: str) -> Behavior:
        known = np.flatnonzero(np.isfinite(t_s))
        if not len(known):
            raise self._refusal(path, f"has no finite timestamp among {len(t_s)}")
        n_back = int(np.count_nonzero(np.diff(t_s[known]) < 0))
        if n_back:
            self.notes.append(f"{path}: {n_back} timestamps that step back, put in order")
        if len(known) < len(t_s):
            self.notes.append(f"{path}: {len(t_s) - len(known)} timestamps that are not finite")
        increasing = known[np.unique(t_s[known], return_index=True)[1]]
        self._note_repeated(path, len(known), len(increasing))
        return Behavior(t_s[increasing], values[increasing], unit or "unknown")

    def _note_repeated(self, path: str, n: int, n_different: int) -> None:
        """Refuse stamps that mostly repeat, and note those that do now and then."""
        if 2 * n_different < n:
            raise self._refusal(
                path,
                f"has {n_different} different timestamps among {n}: were they saved as float32 or "
                "in whole seconds? it must be written again",
            )
        if n_different < n:
            self.notes.append(f"{path}: {n - n_different} timestamps that repeat, left out")

    def _refusal(self, path: str, text: str) -> SessionError:
        return SessionError(f"{self.path}: {path} {text}")


def places_of(file: h5py.File) -> list[str]:
    """List the paths at which behavioural series lie."""
    modules = file.get("processing")
    names = list(modules) if isinstance(modules, h5py.Group) else []
    return ["acquisition", *(f"processing/{name}" for name in names)]
