"""Another decoder over a recorded run: its decodes beside those that were said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from export.backends.opening import open_backend
from export.backends.table import AUTO, kernels_for
from export.bundle import DecoderBundle, open_bundle
from export.shipped import bundle_path
from service.redecode.reading import (
    Begins,
    RecordedRun,
    RecordingError,
    fitting_together,
    open_run,
)
from service.redecode.replay import new_ring
from service.telemetry.recording import records
from streams.messages import Float64s, TokenWindow
from streams.spikes.ring import HeldSpikes
from streams.spikes.tokenizer import Tokenizer
from streams.wire.schema import Decode

SHOWN_S, GAP_STEPS = 20.0, 3.0


@dataclass(frozen=True, slots=True)
class Side:
    """One output of both decoders, where both are usable.

    Attributes:
        t_s: (n,) seconds since the run's start.
        said: (n, dims) what was said, not shaped; `other` the other decoder's.
        other: see `said`.
        unit: of both.
    """

    t_s: Float64s
    said: Float64s
    other: Float64s
    unit: str

    def scores(self) -> dict[str, Any]:
        """Return agreement per dimension: R2 of the other's against what was said, and more."""
        apart = self.other - self.said
        sst = np.square(self.said - self.said.mean(axis=0)).sum(axis=0)
        r2 = 1.0 - np.square(apart).sum(axis=0) / np.where(sst > 0, sst, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = zip(self.said.T, self.other.T, strict=True)
            correlation = [float(np.corrcoef(a, b)[0, 1]) for a, b in columns]
        return {
            "unit": self.unit,
            "decodes": len(self.t_s),
            "r2_against_said": [_told(value) for value in r2],
            "correlation": [_told(value) for value in correlation],
            "rms_difference": [_told(v) for v in np.sqrt(np.square(apart).mean(axis=0))],
            "rms_said": [_told(v) for v in np.sqrt(np.square(self.said).mean(axis=0))],
        }


def what_if(path: Path, other: str, backend: str = "") -> tuple[dict[str, Any], dict[str, Side]]:
    """Decode a recorded run with another decoder.

    It gets the spikes that were admitted in time, and begins its memory anew where the decoder in
    service did. Only decodes that were `ok` count, once its own context has passed.

    Args:
        path: the run's folder.
        other: the other bundle's, or `shipped:NAME`.
        backend: runs it; "" for the fastest.

    Returns:
        The report, and each output of both.

    Raises:
        RecordingError: the run cannot be read, or the decoder has another hop, bin or outputs.
        BundleError, BackendUnavailable: the decoder cannot be opened.
    """
    run = open_run(path)
    bundle = open_bundle(bundle_path(other))
    hop_us, bin_us = (round(s * 1e6) for s in (bundle.manifest.hop_s, bundle.manifest.bin_s))
    if (hop_us, bin_us) != (run.facts["hop_us"], run.facts["bin_us"]):
        raise RecordingError(
            f"{other}: its hop and bin are {hop_us * 1e-3:g} and {bin_us * 1e-3:g} ms, the run's "
            f"{run.facts['hop_us'] * 1e-3:g} and {run.facts['bin_us'] * 1e-3:g} ms"
        )
    beside = _Beside(run, bundle, backend)
    with fitting_together(path):
        beside.go_along(run)
    sides = beside.sides()
    if not sides:
        raise RecordingError(
            f"{other}: none of its outputs ({', '.join(o.name for o in bundle.manifest.outputs)}) "
            "was said in this run while decodes were ok"
        )
    manifest = bundle.manifest
    report = {
        "run": run.facts["run_id"],
        "other": {"decoder_id": manifest.name, "checksum": manifest.id},
        "units_known": f"{beside.n_known} of {len(beside.keys)} in the source",
        "outputs": {name: side.scores() for name, side in sides.items()},
        "remarks": run.remarks,
    }
    return report, sides


@dataclass(slots=True)
class _Row:
    t_s: float
    said: dict[str, list[float | None] | None]
    other: dict[str, list[float]]


class _Beside:
    """Runs the other decoder along the record."""

    def __init__(self, run: RecordedRun, bundle: DecoderBundle, choice: str) -> None:
        self.keys, self.rows = list[str](), list[_Row]()
        self._facts, self._bundle = run.facts, bundle
        self._backend = open_backend(bundle, choice or AUTO).backend
        self._kernels = kernels_for(self._backend)
        none, limit = np.zeros(0, np.int32), self._backend.n_most_tokens
        self._tokenizer = Tokenizer(self._facts["bin_us"], none, limit, self._kernels)
        self._known = np.zeros(0, np.bool_)
        self._ring = new_ring(self._facts, 0, self._kernels)
        self._bin: tuple[int, TokenWindow] | None = None
        self._k = self._k_reset = self._number = self._failed = 0
        self._is_hole = True
        self._values: dict[str, list[float]] = {}
        lead = bundle.manifest.lead_s
        self._lead_s, self._leads = lead.default, (lead.min, lead.max)
        self._context_k = round(bundle.manifest.context_s / bundle.manifest.hop_s)
        self._decode = msgspec.json.Decoder(Decode)

    @property
    def n_known(self) -> int:
        """The source's units that the other decoder knows."""
        return int(self._known.sum())

    def go_along(self, run: RecordedRun) -> None:
        """Take all records."""
        take: dict[type, Callable[[Any], None]] = {
            Begins: self._begins,
            records.Header: lambda one: self._follow(one.keys),
            records.Keys: lambda one: self._follow([*self.keys, *one.keys]),
            records.Arrived: self._arrived,
            records.Closed: lambda one: self._ring.close(one.end_us),
            records.Cut: self._cut,
            records.Ran: self._lead,
            records.Failed: self._fail,
            records.Forgot: self._forget,
            records.Checkpoint: self._restore,
            records.Said: self._said,
        }
        for one in run.records():
            if (handle := take.get(type(one))) is not None:
                handle(one)

    def sides(self) -> dict[str, Side]:
        """Return each output of both, where both said something."""
        found = {}
        for output in self._bundle.manifest.outputs:
            name = output.name
            rows = [row for row in self.rows if _usable(row.said.get(name), output.dims)]
            if len(rows) > 1:
                t_s = np.array([row.t_s for row in rows])
                said = np.array([row.said[name] for row in rows], np.float64)
                other = np.array([row.other[name] for row in rows], np.float64)
                found[name] = Side(t_s, said, other, output.unit)
        return found

    def _begins(self, begins: Begins) -> None:
        self._is_hole = True

    def _arrived(self, arrived: records.Arrived) -> None:
        batch = arrived.batch(len(self._known))
        self._ring.admit(batch, self._known, arrived.latest_us, arrived.repeats)

    def _lead(self, ran: records.Ran) -> None:
        low, high = self._leads
        self._lead_s = min(max(ran.lead_s, low), high)

    def _fail(self, failed: records.Failed) -> None:
        self._failed = failed.number

    def _follow(self, keys: list[str]) -> None:
        self.keys[:] = keys
        rows = [self._bundle.row_of_key.get(key, -1) for key in self.keys]
        self._tokenizer.row_of = np.array(rows, np.int32)
        self._known = self._tokenizer.row_of >= 0

    def _cut(self, cut: records.Cut) -> None:
        self._run()
        spikes, slots = self._ring.cut(cut.end_us)
        self._ring.assign_fate(slots, "used")
        self._ring.close(cut.end_us)
        self._bin = cut.k, self._tokenizer.cut(spikes, cut.end_us, 0.0)[0]

    def _run(self) -> None:
        """Run the newest bin, once its lead is known."""
        if self._bin is None:
            return
        (self._k, window), self._bin = self._bin, None
        raw = self._backend.step(window, self._lead_s)
        self._values = {name: values.tolist() for name, values in raw.items()}

    def _said(self, said: records.Said) -> None:
        if said.topic != "decode":
            return
        self._run()
        decode, self._number = self._decode.decode(said.decode), said.number
        is_warm = self._k - self._k_reset >= self._context_k
        if decode.reason == "" and self._k == decode.beat and is_warm and self._values:
            t_s = decode.t_window - self._facts["t0_s"]
            self.rows.append(_Row(t_s, decode.value_raw, self._values))

    def _forget(self, forgot: records.Forgot) -> None:
        """Begin anew where the decoder in service does, but not for its backend's failures."""
        is_failure, self._failed = forgot.number == self._failed, 0
        if is_failure or forgot.number not in (self._number, self._number or forgot.number):
            return
        self._run()
        self._backend.reset()
        self._k_reset = forgot.k

    def _restore(self, point: records.Checkpoint) -> None:
        if not self._is_hole:
            return
        self._is_hole, self._bin, self._values = False, None, {}
        self._backend.reset()
        self._k = self._k_reset = point.k
        batch = point.batch()
        self._ring = new_ring(self._facts, point.late_until_us, self._kernels)
        self._ring.resume(HeldSpikes(point.late_until_us, point.newest_us, batch))


def _usable(said: list[float | None] | None, dims: int) -> bool:
    return said is not None and len(said) == dims and None not in said


def _told(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _with_gaps(t_s: Float64s, values: Float64s) -> tuple[Float64s, Float64s]:
    """Break the line where no decode was ok for a while."""
    steps_s = np.diff(t_s)
    at = np.flatnonzero(steps_s > GAP_STEPS * np.median(steps_s)) + 1
    return np.insert(t_s, at, np.nan), np.insert(values, at, np.nan)


def draw(path: Path, report: dict[str, Any], sides: dict[str, Side]) -> None:
    """Draw both decoders: the last seconds, and all decodes against one another.

    Args:
        path: of the picture; its ending says the form.
        report: of `what_if`.
        sides: likewise.
    """
    from matplotlib.figure import Figure

    shown = [(name, side, i) for name, side in sides.items() for i in range(side.said.shape[1])]
    figure = Figure(figsize=(11, 1.2 + 2.2 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, width_ratios=(3, 1), squeeze=False)
    for (name, side, i), (trace, cloud) in zip(shown, axes, strict=True):
        late = side.t_s >= side.t_s[-1] - SHOWN_S
        label = f"{name}[{i}] ({side.unit})" if side.unit else f"{name}[{i}]"
        for values, color, told in ((side.said, "0.35", "said"), (side.other, "C1", "other")):
            trace.plot(
                *_with_gaps(side.t_s[late], values[late, i]), color=color, lw=1.1, label=told
            )
        trace.set_ylabel(label)
        trace.margins(x=0)
        cloud.plot(side.said[:, i], side.other[:, i], ".", ms=2, alpha=0.3, color="C1")
        ends = [min(side.said[:, i].min(), side.other[:, i].min()),
                max(side.said[:, i].max(), side.other[:, i].max())]  # fmt: skip
        cloud.plot(ends, ends, color="0.35", lw=0.8)
        scores = report["outputs"][name]
        r2 = scores["r2_against_said"][i]
        cloud.set_title("R2 " + ("none" if r2 is None else f"{r2:.3f}"), fontsize="medium")
        cloud.set_ylabel("other")
    axes[0][0].legend(loc="upper right", ncols=2)
    axes[-1][0].set_xlabel("seconds since the run began")
    axes[-1][1].set_xlabel("said")
    other = report["other"]
    figure.suptitle(
        f"run {report['run']}: {other['decoder_id']} {other['checksum'][:12]} beside it"
    )
    figure.savefig(path, dpi=150)
