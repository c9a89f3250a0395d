"""The behaviour in a recording: signals, trials by direction, gaps, intention.

A subject in control means to go straight to the target, whatever the decoder did, and to
rest once it is there (ReFIT, Gilja et al. 2012). Its own open-loop reaches tell how fast.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.choices import TargetSpec, target_specs
from calibration.errors import WizardError
from calibration.wizard.config import BehaviorSection, MarkersSection
from export.bundle import DecoderBundle
from streams.errors import RecordingError, StreamsError
from streams.exit_codes import ExitCode
from streams.lsl.axes import axes_of
from streams.messages import Float64s
from streams.sessions.convert.convert import PARTS_APART_S
from streams.sessions.session import Behavior, Session, Trials
from streams.sessions.xdf.loading import Recorded
from streams.sessions.xdf.reading import Recording

MARKERS_SHOWN = 10
SECTORS = ("E", "NE", "N", "NW", "W", "SW", "S", "SE")
# A shorter silence is no gap, nor is the time between two recordings.
SHORTEST_GAP_S = PARTS_APART_S + 0.5
# Fewer trials tell little of how sure R2 is.
FEWEST_HELD_OUT = 4
# After another target has appeared, nobody knows yet what the subject means.
REACTION_S = 0.4
# The very fastest samples are often the tracker's noise.
TOP_QUANTILE = 0.9
# Slower than this share of the top speed is rest.
MOVING_SHARE = 0.1
PLACE = "processing/behavior"


def continuous_targets(bundle: DecoderBundle) -> list[TargetSpec]:
    """Read the continuous outputs whose behaviour the bundle states.

    Raises:
        WizardError: there are none.
    """
    targets = [one for one in target_specs(bundle) if one.is_stated and not one.classes]
    if not targets:
        raise WizardError(
            f"decoder {bundle.manifest.name!r} does not say which behaviour its outputs follow, so "
            "it cannot be calibrated; name another under [calibration] base",
            ExitCode.BUNDLE,
        )
    return targets


def body_of(target: TargetSpec) -> str:
    """Name the thing that moves: `cursor` in `.../cursor_velocity`."""
    return target.behavior.rpartition("/")[2].removesuffix("_velocity").removesuffix("_position")


def behavior_stream(recording: Recording, config: BehaviorSection) -> Recorded | None:
    """Find the recorded behaviour; None where there is no stream, or more than one."""
    try:
        return recording.of_type(config.type)
    except RecordingError:
        return None


def behavior_advice(stream: Recorded | None, target: TargetSpec, config: BehaviorSection) -> str:
    """Say which config line makes a stream the behaviour that an output follows."""
    if stream is None:
        return "name the stream under [behavior], by `type` and `name`"
    labels = [label or f"channel_{i}" for i, label in enumerate(stream.labels)]
    labels += [f"channel_{i}" for i in range(len(labels), stream.description.n_channels)]
    body, seen = body_of(target), f"its channels are {', '.join(map(repr, labels))}"
    if len(labels) < target.dims:
        return f"{seen}, and the decoder has {target.dims} dimensions: name another stream"
    lines = [f"channels = {json.dumps(_likely_channels(labels, target.dims))}"]
    if config.body != body:
        lines.insert(0, f"body = {json.dumps(body)}")
    axes = "xyz"[: target.dims]
    return (
        f"{seen}: label them {', '.join(f'{body}_{axis}' for axis in axes)}, or say under "
        f"[behavior] which are {', '.join(axes)}: {' and '.join(f'`{line}`' for line in lines)}"
    )


def _likely_channels(labels: Sequence[str], dims: int) -> list[str]:
    """Channels to begin with: one thing's that has so many axes, else the first."""
    alike = [columns for columns in axes_of(labels).values() if len(columns) == dims]
    return [labels[i] for i in (alike[0] if alike else range(dims))]


def n_unknown(values: np.ndarray) -> int:
    """Count the samples, (n, d), that hold NaN or infinity."""
    return int(np.count_nonzero(~np.isfinite(values.astype(np.float64)).all(axis=1)))


def unknown_positions(session: Session, targets: Sequence[TargetSpec]) -> str:
    """Say how many positions are unknown; "" where none is."""
    for body in dict.fromkeys(map(body_of, targets)):
        try:
            values = session.signal(f"{body}_position").values
        except StreamsError:
            continue
        if n := n_unknown(values):
            return f"{n} of {len(values)} positions ({n / len(values):.1%}) are NaN and left out"
    return ""


def markers_shown(texts: Sequence[str]) -> str:
    """Show up to ten different markers."""
    different = list(dict.fromkeys(texts))
    named = ", ".join(map(repr, different[:MARKERS_SHOWN]))
    n_more = len(different) - MARKERS_SHOWN
    return f"{len(texts)} markers came: {named}{f' and {n_more} others' if n_more > 0 else ''}"


def marker_advice(config: MarkersSection, texts: Sequence[str]) -> str:
    """Say which config lines make trials from the markers that came."""
    # Different markers mostly differ in their first word; what follows are numbers.
    words = dict.fromkeys(text.split()[0] for text in texts if text.split())
    start, stop = [*words, "...", "..."][:2]
    return (
        f"no pair of them begins with {config.trial_start!r} and {config.trial_stop!r}. Say under "
        f"[markers] how yours begin, in the way of `trial_start = {json.dumps(start)}` and "
        f"`trial_stop = {json.dumps(stop)}`"
    )


@dataclass(frozen=True, slots=True)
class TrialCount:
    """Trials by direction.

    Attributes:
        n: trials.
        sectors: trials per eighth of the circle, from east counter-clockwise.
        balance: 1 where all directions are met alike, 0 where all lie on one line.
        n_directed: trials whose direction is known.
    """

    n: int = 0
    sectors: tuple[int, ...] = (0,) * len(SECTORS)
    balance: float = 0.0
    n_directed: int = 0


def count_trials(session: Session, body: str) -> TrialCount:
    """Count trials by the direction from where the body was to the target."""
    trials = session.trials
    if trials is None or not len(trials):
        return TrialCount()
    angles = _directions(session, trials, body)
    known = angles[np.isfinite(angles)]
    sector = np.round(known / (2.0 * math.pi / len(SECTORS))).astype(np.int64) % len(SECTORS)
    counts = np.bincount(sector, minlength=len(SECTORS))
    return TrialCount(len(trials), tuple(counts.tolist()), _balance(known), len(known))


def _directions(session: Session, trials: Trials, body: str) -> Float64s:
    """(n_trials,) radians, NaN where target or movement is unknown."""
    moved = session.behavior.get(f"{PLACE}/Position/{body}_position")
    if moved is None:
        return np.zeros(0)
    # Positions may be sparse at rest: gaps up to half a second are bridged.
    begin = moved.at(trials.start_s, 0.5)
    end = np.asarray(trials.columns["target"], np.float64)
    if end.shape != begin.shape or not np.isfinite(end).any():
        # Without targets in the markers, where it ended tells the direction.
        end = moved.at(trials.stop_s, 0.5)
    if begin.shape[1:] != (2,):
        return np.full(len(trials), np.nan)
    step = end - begin
    angles: Float64s = np.arctan2(step[:, 1], step[:, 0])
    # It did not move, so there is no direction.
    angles[np.hypot(step[:, 0], step[:, 1]) < 1e-3] = np.nan
    return angles


def _balance(angles: Float64s) -> float:
    """Twice the lesser axis's share in the scatter of unit vectors."""
    if len(angles) < 2:
        return 0.0
    vectors = np.stack([np.cos(angles), np.sin(angles)])
    spread = np.linalg.eigvalsh(vectors @ vectors.T)
    return float(2.0 * spread[0] / spread.sum())


def test_part(session: Session, verify_s: float) -> str:
    """Hold out the last seconds, from the start of a trial on; as `adapt` takes it.

    Where they hold few trials, `FEWEST_HELD_OUT` are taken, but no more than half of all.
    """
    begin_s = session.duration_s - verify_s
    if session.trials is not None:
        starts_s = np.sort(session.trials.start_s[np.isfinite(session.trials.start_s)])
        i_first = int(np.searchsorted(starts_s, begin_s, side="right")) - 1
        i_first = min(i_first, len(starts_s) - min(FEWEST_HELD_OUT, len(starts_s) // 2))
        # Not inside a trial, whose bins are alike.
        begin_s = float(starts_s[i_first]) if i_first >= 0 else begin_s
    return f"{begin_s:.3f}-{session.duration_s:.3f}"


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without samples, in session seconds."""

    what: str
    from_s: float
    to_s: float


def longest_silence_s(bundle: DecoderBundle) -> float:
    """Longest silence in all units together that is no gap."""
    return max(SHORTEST_GAP_S, bundle.manifest.stale_after_s)


def find_gaps(session: Session, behaviors: Sequence[str], longest_s: float) -> list[Gap]:
    """Find where spikes or behaviour are away for longer than `longest_s`.

    Args:
        session: collected.
        behaviors: signals that the decoder follows.
        longest_s: seconds.
    """
    sources: dict[str, Float64s] = {"spikes": (session.spikes.t_us * 1e-6).astype(np.float64)}
    sources |= {name: session.signal(name).t_s for name in behaviors}
    gaps = []
    for what, t_s in sources.items():
        edges_s = np.concatenate([[0.0], t_s, [session.duration_s]])
        for i in np.flatnonzero(np.diff(edges_s) > longest_s):
            gaps.append(Gap(what, float(edges_s[i]), float(edges_s[i + 1])))
    return gaps


def without_gaps(session: Session, gaps: Sequence[Gap]) -> Session:
    """Drop the trials in gaps, mask behaviour there, and cut off a gap at the end."""
    if not gaps:
        return session
    ends_s = [gap.from_s for gap in gaps if gap.to_s >= session.duration_s]
    return replace(
        session,
        behavior={name: _masked(signal, gaps) for name, signal in session.behavior.items()},
        trials=None if session.trials is None else _outside(session.trials, gaps),
        duration_s=min(ends_s, default=session.duration_s),
    )


def describe_gaps(session: Session, gaps: Sequence[Gap]) -> str:
    """Say which times, and how many trials, are not used; "" for none."""
    if not gaps:
        return ""
    n = len(session.trials or ()) - len(without_gaps(session, gaps).trials or ())
    named = "; ".join(f"no {one.what} from {one.from_s:.1f} to {one.to_s:.1f} s" for one in gaps)
    return f"{named}: nothing is learnt from that, and {n} trials are not used"


def seconds_outside(session: Session, gaps: Sequence[Gap]) -> float:
    """Sum up the time outside gaps."""
    left_s, begin_s = session.duration_s, 0.0
    # Gaps of different streams may overlap, and count once.
    for gap in sorted(gaps, key=lambda one: one.from_s):
        left_s -= max(0.0, gap.to_s - max(gap.from_s, begin_s))
        begin_s = max(begin_s, gap.to_s)
    return left_s


def _masked(signal: Behavior, gaps: Sequence[Gap]) -> Behavior:
    values = signal.values.copy()
    for gap in gaps:
        values[(signal.t_s > gap.from_s) & (signal.t_s < gap.to_s)] = np.nan
    return replace(signal, values=values)


def _outside(trials: Trials, gaps: Sequence[Gap]) -> Trials:
    kept = np.ones(len(trials), np.bool_)
    for gap in gaps:
        kept &= ~((trials.start_s < gap.to_s) & (trials.stop_s > gap.from_s))
    columns = {name: column[kept] for name, column in trials.columns.items()}
    return Trials(trials.start_s[kept], trials.stop_s[kept], columns)


@dataclass(frozen=True, slots=True)
class Pace:
    """The subject's pace: top speed from afar, slower on the second half of the way.

    Attributes:
        top: speed, in the position's unit a second.
        slow_within: distance to the target from which on it slows down.
    """

    top: float
    slow_within: float

    def speed(self, away: Float64s) -> Float64s:
        """(n,) at each distance."""
        speed: Float64s = self.top * np.minimum(1.0, away / self.slow_within)
        return speed


def pace_of(session: Session, body: str) -> Pace:
    """Read a subject's pace from its own movements.

    Raises:
        WizardError: it did not move, or there are no targets.
    """
    moved, position, target = _signals(session, body)
    speed = np.linalg.norm(moved.values, axis=1)
    speed = speed[np.isfinite(speed)]
    moving = speed[speed > MOVING_SHARE * np.max(speed, initial=0.0)]
    starts_s = np.zeros(0) if session.trials is None else session.trials.start_s
    # The target may be sent just after the marker.
    shown = _shown_at(target, starts_s + 0.05)
    reach = np.linalg.norm(shown - position.at(starts_s), axis=1)
    reach = reach[np.isfinite(reach) & (reach > 0)]
    if not len(moving) or not len(reach):
        raise WizardError(
            f"{body!r} does not move to targets in what was collected: how fast the subject means "
            "to go cannot be known",
            ExitCode.STREAM,
        )
    return Pace(float(np.quantile(moving, TOP_QUANTILE)), 0.5 * float(np.median(reach)))


def with_intention(session: Session, body: str, pace: Pace, on_target: float) -> Session:
    """Replace a session's velocity by the one that was meant.

    Args:
        session: in which the subject drove; with the positions of `body` and target.
        body: what moved.
        pace: the subject's.
        on_target: how close counts as on the target, in the position's unit.

    Raises:
        WizardError: there is no target to mean.
    """
    moved, position, target = _signals(session, body)
    shown = _shown_at(target, moved.t_s)
    meant = intended(position.at(moved.t_s), shown, pace, on_target)
    meant[_just_changed(moved.t_s, shown)] = np.nan
    name = f"{PLACE}/BehavioralTimeSeries/{body}_velocity"
    behavior = {**session.behavior, name: Behavior(moved.t_s, meant, moved.unit)}
    return replace(session, behavior=behavior)


def intended(cursor: Float64s, target: Float64s, pace: Pace, on_target: float) -> Float64s:
    """Go straight to the target at the subject's pace, and rest on it.

    Args:
        cursor: (n, d).
        target: (n, d), NaN where none was shown.
        pace: the subject's.
        on_target: how close counts as on it.

    Returns:
        (n, d), NaN where there was no target.
    """
    way = target - cursor
    away = np.linalg.norm(way, axis=1)
    speed = np.where(away <= on_target, 0.0, pace.speed(away))
    meant: Float64s = (speed / np.maximum(away, 1e-9))[:, None] * way
    return meant


def _signals(session: Session, body: str) -> tuple[Behavior, Behavior, Behavior]:
    """The body's velocity and position, and the target's position."""
    names = (
        f"{PLACE}/BehavioralTimeSeries/{body}_velocity",
        f"{PLACE}/Position/{body}_position",
        f"{PLACE}/Position/target_position",
    )
    moved, position, target = (session.behavior.get(name) for name in names)
    if moved is None or position is None or target is None:
        raise WizardError(
            f"the streams give no position of {body!r} and of the target: what the subject means "
            "cannot be known. Send `target_x`, `target_y` beside the cursor",
            ExitCode.STREAM,
        )
    return moved, position, target


def _shown_at(target: Behavior, t_s: Float64s) -> Float64s:
    """(n, d) the target shown at each time: the newest sample before it."""
    i = np.maximum(np.searchsorted(target.t_s, t_s, side="right") - 1, 0)
    return np.asarray(target.values[i], np.float64)


def _just_changed(t_s: Float64s, target: Float64s) -> np.ndarray:
    """(n,) bool, True within a reaction time after the target has changed."""
    changed = np.flatnonzero((np.diff(target, axis=0) != 0).any(axis=1)) + 1
    if not len(changed):
        return np.zeros(len(t_s), np.bool_)
    last = np.searchsorted(changed, np.arange(len(t_s)), side="right") - 1
    since_s = t_s - t_s[changed[np.maximum(last, 0)]]
    return np.asarray((last >= 0) & (since_s < REACTION_S))
