"""The data collected so far: amount, coverage, learning curve, and troubles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibration.choices import TargetSpec
from calibration.errors import WizardError
from calibration.ridge import binned_counts, ridge_weights, with_history
from calibration.wizard.behavior import (
    Gap,
    TrialCount,
    behavior_advice,
    behavior_stream,
    continuous_targets,
    count_trials,
    describe_gaps,
    find_gaps,
    longest_silence_s,
    marker_advice,
    markers_shown,
    seconds_outside,
    unknown_positions,
    without_gaps,
)
from calibration.wizard.config import CollectSection
from calibration.wizard.recording import errors_as_told_here, reading_of
from calibration.wizard.results import LearningPoint
from calibration.wizard.run import CalibrationRun
from export.bundle import DecoderBundle
from streams.errors import StreamsError
from streams.exit_codes import ExitCode
from streams.r2 import r2_score
from streams.sessions.convert.convert import convert
from streams.sessions.convert.signals import marker_texts
from streams.sessions.session import Session
from streams.sessions.xdf.reading import read_recording

# The quick filter is coarse and short: it is fitted anew every second or so while data come in.
BIN_S = 0.05
N_LAGS = 6
N_FOLDS = 5
RIDGE = 30.0
# A trial more than there are folds.
FEWEST_TRIALS = 6
# R2; less is within the noise of the cross-validation.
GAIN_THAT_COUNTS = 0.02
# Whether data still help is judged by what the last third of them brought.
LOOK_BACK = 1.5
# Below, trials lie nearly on a line and the other axis cannot be learnt.
LEAST_BALANCE = 0.1
SHORTEST_JUDGED_S = 1.0
# Less movement than this, in the unit of the behaviour, is none.
FROZEN = 1e-6
# No recording of a morning is longer; stamps of several clocks are.
LONGEST_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class BaseNeeds:
    """Needs that the base decoder has.

    Attributes:
        unit_keys: its units.
        targets: behaviour it follows.
        longest_silence_s: a longer silence in all units together is a gap.
    """

    unit_keys: tuple[str, ...]
    targets: list[TargetSpec]
    longest_silence_s: float

    @classmethod
    def of(cls, bundle: DecoderBundle) -> BaseNeeds:
        """Read them from the bundle."""
        keys = tuple(bundle.row_of_key)
        return cls(keys, continuous_targets(bundle), longest_silence_s(bundle))

    def gaps(self, session: Session) -> list[Gap]:
        """Find the gaps in what the decoder needs."""
        names = [target.behavior for target in self.targets]
        have = [
            name
            for name in names
            if any(path == name or path.endswith("/" + name) for path in session.behavior)
        ]
        return find_gaps(session, have, self.longest_silence_s)


@dataclass(slots=True)
class Collected:
    """Data that have come so far.

    Attributes:
        needs: the base decoder's.
        seconds: recorded, earlier parts included.
        count: trials by direction.
        spikes_per_s: over everything.
        curve: the learning curve.
        troubles: what is wrong, and what to do.
        left_out: times and trials that are not used, "" where all are.
        unknown: positions that are NaN, "" where none is.
        lost: what the recorder could not record.
        has_quick_filter: fit the curve's filter; not where decoders are made while collecting.
    """

    needs: BaseNeeds
    seconds: float = 0.0
    count: TrialCount = field(default_factory=TrialCount)
    spikes_per_s: float = 0.0
    curve: list[LearningPoint] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    left_out: str = ""
    unknown: str = ""
    lost: list[str] = field(default_factory=list)
    has_quick_filter: bool = True

    @property
    def remarks(self) -> list[str]:
        """Lines about data lost or left out."""
        return [*self.lost, *filter(None, (self.left_out, self.unknown))]

    @property
    def more_helps(self) -> bool | None:
        """True while more data help; None while it is too early to say."""
        return more_helps(self.curve)

    @property
    def trouble(self) -> WizardError:
        """The error to end with where something is wrong."""
        lost = [f"{one.rstrip('.')}." for one in self.lost]
        return WizardError(" ".join((*lost, *self.troubles)), ExitCode.STREAM)

    def is_enough(self, config: CollectSection) -> bool:
        """Return True where collecting may end."""
        return self.is_fit(config) and self.seconds >= config.learn_s + config.verify_s

    def is_fit(self, config: CollectSection) -> bool:
        """Return True where a decoder could be made of it, however short it is."""
        return (
            not self.troubles
            and self.count.n >= config.fewest_trials
            and (self.count.n_directed == 0 or self.count.balance >= LEAST_BALANCE)
        )

    def require(self, config: CollectSection) -> None:
        """Refuse what nothing could be learnt from; it stays recorded.

        Raises:
            WizardError: says what is missing.
        """
        if self.troubles:
            raise self.trouble
        if self.count.n < config.fewest_trials:
            raise WizardError(
                f"too few trials: {self.count.n} in {self.seconds:.0f} s, where "
                f"{config.fewest_trials} are needed. Go on collecting (they are kept), or lower "
                "`fewest_trials`",
                ExitCode.STREAM,
            )
        if self.count.n_directed and self.count.balance < LEAST_BALANCE:
            raise WizardError(
                f"all {self.count.n} trials go along one direction (balance "
                f"{self.count.balance:.2f}): the other cannot be learnt. Show targets all around",
                ExitCode.STREAM,
            )

    def update(self, run: CalibrationRun) -> None:
        """Read what has been recorded by now."""
        paths = run.recordings
        if not paths:
            return
        try:
            whole = convert(paths, run.session_id, reading_of(run.config, self.needs.unit_keys))
            if whole.duration_s > LONGEST_S * len(paths):  # before anything is made of that length
                self.troubles = [_too_long(whole.duration_s)]
                return
            gaps = self.needs.gaps(whole)
        except StreamsError as err:
            self.troubles = [errors_as_told_here(err)]
            return
        # A gap that reaches the end is still open: a trouble, not yet a loss.
        open_gaps = [one for one in gaps if one.to_s >= whole.duration_s]
        session = without_gaps(whole, gaps)
        self.seconds = seconds_outside(whole, gaps)
        self.count = count_trials(session, run.config.behavior.body)
        self.spikes_per_s = len(session.spikes) / max(self.seconds, 1e-9)
        self.left_out = describe_gaps(whole, [one for one in gaps if one not in open_gaps])
        self.unknown = unknown_positions(whole, self.needs.targets)
        self.troubles = self._troubles(run, session, paths[-1]) + list(map(_away, open_gaps))
        # A point of data with troubles would bend the curve.
        fits = self.has_quick_filter and not self.troubles
        point = learning_point(session, self.needs.targets[0]) if fits else None
        if point is not None and (not self.curve or point.n_trials > self.curve[-1].n_trials):
            self.curve.append(point)

    def _troubles(self, run: CalibrationRun, session: Session, newest: Path) -> list[str]:
        found = []
        if session.trials is None or not len(session.trials):
            found.append(_no_trials(run, newest))
        for target in self.needs.targets:
            try:
                values = session.signal(target.behavior).values
            except StreamsError:
                found.append(_no_behavior(run, target, newest))
                continue
            known = values[np.isfinite(values).all(axis=1)]
            if len(known) > 1 and session.duration_s > SHORTEST_JUDGED_S and np.ptp(known) < FROZEN:
                found.append(
                    f"{target.behavior} is frozen: it has not moved in {session.duration_s:.0f} s. "
                    "Does the task run, and is this the stream of what moves?"
                )
        return found


def learning_point(session: Session, target: TargetSpec) -> LearningPoint | None:
    """Score a quick filter on what was collected so far; None while there is too little."""
    trials = session.trials
    if trials is None or len(trials) < FEWEST_TRIALS:
        return None
    n_bins = int(session.duration_s / BIN_S)
    ends_s = (np.arange(n_bins, dtype=np.float64) + 1.0) * BIN_S
    actual = session.signal(target.behavior).at(ends_s)
    known = np.isfinite(actual).all(axis=1)
    history = with_history(binned_counts(session, BIN_S, n_bins), N_LAGS)[known]
    actual = actual[known]
    # Whole trials are left out, as bins next to each other are alike.
    fold = np.searchsorted(np.sort(trials.start_s), ends_s[known], side="left") % N_FOLDS
    decoded = np.zeros_like(actual)
    for i in np.unique(fold):
        left_out = fold == i
        if not left_out.all():
            (weights,) = ridge_weights(history[~left_out], actual[~left_out], (RIDGE,))
            decoded[left_out] = history[left_out] @ weights
    r2 = np.array(r2_score(decoded, actual))
    mean = float(r2[np.isfinite(r2)].mean()) if np.isfinite(r2).any() else 0.0
    return LearningPoint(float(np.count_nonzero(known)) * BIN_S, len(trials), mean)


def more_helps(curve: Sequence[LearningPoint]) -> bool | None:
    """Return True while more data make the filter better; None while it is too early to say."""
    if len(curve) < 4:
        return None
    earlier = [one for one in curve if one.seconds <= curve[-1].seconds / LOOK_BACK]
    if not earlier:
        return None
    # Two points, since one is noisy.
    recent = float(np.mean([one.r2 for one in curve[-2:]]))
    return recent - earlier[-1].r2 > GAIN_THAT_COUNTS


def _too_long(seconds: float) -> str:
    return (
        f"What was recorded spans {seconds:,.0f} s by its stamps: they are not all of LSL's clock. "
        "`spikeloop lint` tells whose are not; let its program stamp with LSL's local_clock(), and "
        "begin anew."
    )


def _away(gap: Gap) -> str:
    return (
        f"No {gap.what} since {gap.from_s:.1f} s: does their program run, and is the stream that "
        "is recorded still there? What comes meanwhile is not used."
    )


def _no_behavior(run: CalibrationRun, target: TargetSpec, newest: Path) -> str:
    config = run.config.behavior
    stream = behavior_stream(read_recording(newest), config)
    if stream is not None and not len(stream):
        return f"No {target.behavior}: {stream.description} has brought nothing. Does the task run?"
    if stream is not None and stream.trouble:
        return f"No {target.behavior}: {stream.description} cannot be used: {stream.trouble}."
    return f"No {target.behavior}: {behavior_advice(stream, target, config)}."


def _no_trials(run: CalibrationRun, newest: Path) -> str:
    markers = run.config.markers
    try:
        texts = marker_texts(read_recording(newest).of_type(markers.type))
    except StreamsError as err:
        return f"No trial: {err}."
    if not texts:
        return (
            f"No trial: the stream of {markers.type} brought no marker. Does the task run, and "
            "does it send markers?"
        )
    return f"No trial. {markers_shown(texts)}: {marker_advice(markers, texts)}."
