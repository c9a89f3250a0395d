"""The sequence: each new trial is decoded by the decoder made before it, then learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.calibration_data import CalibrationData, prepare
from calibration.adaptation.closed_form import RUN_UP_S, ClosedForm
from calibration.adaptation.scores import bins_of, shuffled
from calibration.choices import rows_in
from calibration.errors import CalibrationError
from calibration.prequential.traces import (
    HALF,
    CurvePoint,
    ExpectedGain,
    Traces,
    curve_point,
    expected_gain,
    joined,
)
from calibration.prequential.wiener import fit_and_decode
from decoders.streaming.tuning import counts_matrix
from decoders.training.output_columns import OutputColumns
from export.backends.onnxruntime_cpu import OnnxruntimeBackend, open_cpu
from export.bundle import DecoderBundle
from streams.errors import StreamsError
from streams.messages import Float64s, Int32s
from streams.sessions.session import Behavior, Session, Trials

EVERYTHING_S = 1e6
SETTLED_S = 1.0
"""Data this old no longer change: what was sent late has come."""
GROWTH = 0.05
"""A decoder is made at most for so much more data: all of the work then grows as the data do."""
Tell = Callable[[str], None]
OnMade = Callable[[CalibrationData, Adapted], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When decoders are made.

    Attributes:
        first_s: seconds of data before the first.
        every_s: seconds of data between two, at least.
    """

    first_s: float = 10.0
    every_s: float = 5.0

    def after(self, seconds: float) -> float:
        """Time of the next decoder after one of so many seconds."""
        return seconds + max(self.every_s, GROWTH * seconds)


@dataclass(frozen=True, slots=True)
class Made:
    """One decoder of the sequence; it knows what came before `seconds`."""

    seconds: float
    keys: tuple[str, ...]
    found: Adapted


class PredictThenLearn:
    """A session's trials, decoded by a sequence of decoders that are made in closed form.

    A decoder is made where a trial ends. It decodes the trials that begin later, until the next
    decoder is made. A session that grows gives the same sequence as the whole one does at once.

    Args:
        bundle: yesterday's decoder.
        options: of the adaptation.
        schedule: when decoders are made.
        tell: hears what is being done.
        on_made: is given each new decoder, with the data that it was made from.

    Raises:
        CalibrationError: the decoder has no closed form.
    """

    def __init__(
        self,
        bundle: DecoderBundle,
        options: Options,
        schedule: Schedule | None = None,
        tell: Tell = lambda phase: None,
        on_made: OnMade = lambda data, found: None,
    ) -> None:
        self._on_made = on_made
        self.bundle, self.schedule, self._tell = bundle, schedule or Schedule(), tell
        self._options = options
        self._closed_form = ClosedForm(bundle)
        self._backend: OnnxruntimeBackend | None = None
        # It runs on through all trials, as it would in the daemon.
        self._yesterday, self._i_yesterday = open_cpu(bundle), 0
        self._due_s = self.schedule.first_s
        self._made: list[Made] = []
        self._parts: list[Traces] = []
        self._first: Traces | None = None
        self.n_made, self.newest_s = 0, 0.0
        self.curve: list[CurvePoint] = []
        self.gain: ExpectedGain | None = None
        self.refused = ""

    @property
    def traces(self) -> Traces | None:
        """Everything scored so far; None for nothing."""
        return joined(self._parts) if self._parts else None

    @property
    def newest_scored(self) -> Traces | None:
        """Every trial by a decoder that had not seen it, for a score of the newest ones.

        Before those of `traces` are the first decoder's own, each decoded by one that was made like
        it, without that trial.
        """
        parts = [self._first, *self._parts] if self._first else self._parts
        return joined(parts) if parts else None

    def update(self, session: Session, *, is_over: bool = False) -> None:
        """Go on with a session that has grown.

        Args:
            session: from its start.
            is_over: nothing more will come, so that the last trials are scored too.

        Raises:
            streams.errors.SessionError: the session lacks a behaviour.
        """
        ends_s = _ends(session)
        known_s = session.duration_s - (0.0 if is_over else SETTLED_S)
        while len(due := ends_s[(ends_s >= self._due_s) & (ends_s <= known_s)]):
            self._step(until(session, float(due[0]), self.bundle.row_of_key), learns=True)
            self._due_s = self.schedule.after(float(due[0]))
        if is_over and len(ends_s) and self._made and ends_s[-1] > self._made[-1].seconds:
            self._step(until(session, float(ends_s[-1]), self.bundle.row_of_key), learns=False)

    def _step(self, session: Session, *, learns: bool) -> None:
        try:
            data = prepare(self.bundle, session, EVERYTHING_S, None, None)
        except (CalibrationError, StreamsError) as err:
            self.refused = str(err)
            return
        self.refused = ""
        if self._made:
            self._score(data)
        if learns:
            self._learn(data)

    def _learn(self, data: CalibrationData) -> None:
        """Make the next decoder; keep those before that are still compared with."""
        seconds = data.session.duration_s
        self._tell(f"making the decoder of {seconds:.0f} s")
        try:
            found = self._closed_form.adapt(data, self._options)
        except CalibrationError as err:
            self.refused = str(err)
            return
        self._made.append(Made(seconds, data.session.unit_keys, found))
        self.n_made, self.newest_s = self.n_made + 1, seconds
        if not self._parts and found.unseen is not None:
            self._first = self._of_itself(data, found.unseen)
        self._on_made(data, found)
        n_older = sum(1 for one in self._made if one.seconds <= seconds / 2.0)
        del self._made[: max(0, n_older - 1)]

    def _of_itself(self, data: CalibrationData, unseen: Float64s) -> Traces | None:
        """The first decoder's own trials, by tables made without each."""
        out = next(one for one in data.outputs if not one.classes)
        target: Float64s = data.targets[:, out.target]
        told = np.isfinite(unseen[:, out.answer]).all(axis=1) & np.isfinite(target).all(axis=1)
        if not (scored := np.flatnonzero(told)).size:
            return None
        newest = self._made[-1]
        mixed = shuffled(np.arange(len(newest.keys), dtype=np.int32), self._options.seed)
        return Traces(
            t_s=data.ends_s[scored],
            block=data.block[scored] - data.recording.n_bins,  # before those that follow
            learnt_s=np.full(len(scored), newest.seconds),
            half_s=np.full(len(scored), np.nan),
            actual=target[scored],
            decodes={
                "today": unseen[scored][:, out.answer],
                "yesterday": self._decoded_yesterday(data, out, scored),
                "shuffled": self._decoded(newest, data, mixed, out, scored),
            },
        )

    def _score(self, data: CalibrationData) -> None:
        """Decode the trials that began after the newest decoder was made."""
        newest, trials = self._made[-1], data.session.trials
        begun_s = (
            np.zeros(0) if trials is None else trials.start_s[trials.start_s >= newest.seconds]
        )
        begun_s = np.sort(begun_s[np.isfinite(begun_s)])
        if not len(begun_s):
            return
        out = next(one for one in data.outputs if not one.classes)
        target: Float64s = data.targets[:, out.target]
        scored = np.flatnonzero((data.ends_s > begun_s[0]) & np.isfinite(target).all(axis=1))
        if not len(scored):
            return
        self._tell(f"scoring {len(begun_s)} trials")
        t_s = data.ends_s[scored]
        half = self._made[0] if self._made[0].seconds <= newest.seconds / 2.0 else None
        n_before = 1 + int(self._parts[-1].block[-1]) if self._parts else 0
        self._parts.append(
            Traces(
                t_s=t_s,
                block=n_before + np.searchsorted(begun_s, t_s, side="left").astype(np.int64),
                learnt_s=np.full(len(t_s), newest.seconds),
                half_s=np.full(len(t_s), half.seconds if half else np.nan),
                actual=target[scored],
                decodes=self._decodes(data, out, newest, half, scored),
            )
        )
        traces = joined(self._parts)
        seconds, seed = data.session.duration_s, self._options.seed
        self.curve.append(curve_point(traces, seconds, seed))
        self.gain = expected_gain(traces, seconds, seed)

    def _decodes(
        self,
        data: CalibrationData,
        out: OutputColumns,
        newest: Made,
        half: Made | None,
        scored: np.ndarray,
    ) -> dict[str, Float64s]:
        """(n, dims) of every decoder that is compared."""
        keys, target = data.session.unit_keys, data.targets[:, out.target]
        rows = rows_in({key: i for i, key in enumerate(newest.keys)}, keys)
        known = rows >= 0
        mixed = rows.copy()
        # R2 that is left with the units in another order owes nothing to their tuning.
        mixed[known] = shuffled(rows[known], self._options.seed)
        counts = counts_matrix(data.recording.tokens, len(keys))
        learnt = data.labelled & (data.ends_s <= newest.seconds)
        today = self._decoded(newest, data, rows, out, scored)
        return {
            "today": today,
            "yesterday": self._decoded_yesterday(data, out, scored),
            "wiener": fit_and_decode(counts, target, learnt, scored, data.hop_s),
            "shuffled": self._decoded(newest, data, mixed, out, scored),
            HALF: self._decoded_half(half, data, out, scored),
        }

    def _decoded_half(
        self, half: Made | None, data: CalibrationData, out: OutputColumns, scored: np.ndarray
    ) -> Float64s:
        if half is None:
            return np.full((len(scored), out.answer.stop - out.answer.start), np.nan)
        row_of = {key: i for i, key in enumerate(half.keys)}
        return self._decoded(half, data, rows_in(row_of, data.session.unit_keys), out, scored)

    def _decoded(
        self,
        made: Made,
        data: CalibrationData,
        rows: Int32s,
        out: OutputColumns,
        scored: np.ndarray,
    ) -> Float64s:
        """Decode by one of the sequence, after a run-up."""
        if self._backend is None:
            names = [output.name for output in self.bundle.manifest.outputs]
            graph = self.bundle.manifest.graph
            self._backend = OnnxruntimeBackend(made.found.graph, graph, made.found.tables, names)
        self._backend.reset()
        self._backend.set_tables(made.found.tables)
        first = max(0, int(scored[0]) - round(RUN_UP_S / data.hop_s))
        return _run(self._backend, data, rows, out.name, first, scored)

    def _decoded_yesterday(
        self, data: CalibrationData, out: OutputColumns, scored: np.ndarray
    ) -> Float64s:
        rows = rows_in(self.bundle.row_of_key, data.session.unit_keys)
        # A decoder that knows none of the units says zero; today's must beat that too.
        if not (rows[data.session.spikes.unit] >= 0).any():
            return np.zeros((len(scored), out.answer.stop - out.answer.start))
        first, self._i_yesterday = self._i_yesterday, int(scored[-1]) + 1
        return _run(self._yesterday, data, rows, out.name, first, scored)


def _run(
    backend: OnnxruntimeBackend,
    data: CalibrationData,
    rows: Int32s,
    output: str,
    first: int,
    scored: np.ndarray,
) -> Float64s:
    """Decode from bin `first` on; (n_scored, dims) of the scored bins."""
    window_of, decoded = bins_of(data), []
    wanted = np.zeros(int(scored[-1]) + 1, np.bool_)
    wanted[scored] = True
    for i in range(first, len(wanted)):
        answer = backend.step(window_of(i, rows), lead_s=0.0)
        if wanted[i]:
            decoded.append(answer[output].astype(np.float64))
    return np.stack(decoded)


def until(session: Session, end_s: float, known: Mapping[str, int]) -> Session:
    """The session as it was at a time; a unit that had not fired yet is there if it is known."""
    spikes = session.spikes
    came = spikes.t_us <= round(end_s * 1e6)
    fired = np.bincount(spikes.unit[came], minlength=len(session.unit_keys)) > 0
    kept = [i for i, key in enumerate(session.unit_keys) if fired[i] or key in known]
    row = np.full(len(session.unit_keys), -1, np.int32)
    row[kept] = np.arange(len(kept), dtype=np.int32)
    return replace(
        session,
        unit_keys=tuple(session.unit_keys[i] for i in kept),
        spikes=replace(
            spikes,
            t_us=spikes.t_us[came],
            unit=row[spikes.unit[came]],
            count=spikes.count[came],
        ),
        behavior={name: _signal_until(one, end_s) for name, one in session.behavior.items()},
        trials=_trials_until(session.trials, end_s),
        duration_s=end_s,
    )


def _signal_until(signal: Behavior, end_s: float) -> Behavior:
    n = int(np.searchsorted(signal.t_s, end_s, side="right"))
    masked = None if signal.masked_in is None else signal.masked_in[:n]
    return replace(signal, t_s=signal.t_s[:n], values=signal.values[:n], masked_in=masked)


def _trials_until(trials: Trials | None, end_s: float) -> Trials | None:
    if trials is None:
        return None
    over = trials.stop_s <= end_s
    columns = {name: column[over] for name, column in trials.columns.items()}
    return Trials(trials.start_s[over], trials.stop_s[over], columns)


def _ends(session: Session) -> Float64s:
    """When each trial ended, in order."""
    if session.trials is None:
        return np.zeros(0)
    stops_s = session.trials.stop_s
    return np.sort(stops_s[np.isfinite(stops_s)])
