"""What the subject meant while it drove: straight to the target, at its own pace, at rest on it.

Gilja et al. 2012 (ReFIT): a subject in control means to go straight to the target, whatever the
decoder made of it, and to rest once it is there. How fast, its own open-loop reaches tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calibration.wizard.errors import STREAM, WizardError
from streams.messages import Float64s
from streams.sessions.session import Behavior, Session

REACTION_S = 0.4
"""After another target has appeared, nobody knows yet what the subject means."""
TOP_QUANTILE = 0.9
MOVING_SHARE = 0.1
PLACE = "processing/behavior"


@dataclass(frozen=True, slots=True)
class Pace:
    """How the subject reaches: at top speed from afar, slowing down on the second half of the way.

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
    """The pace of a subject that moved by itself.

    Raises:
        WizardError: it did not move, or there are no targets.
    """
    moved, position, target = _signals(session, body)
    speed = np.linalg.norm(moved.values, axis=1)
    speed = speed[np.isfinite(speed)]
    moving = speed[speed > MOVING_SHARE * np.max(speed, initial=0.0)]
    trials = session.trials
    starts_s = trials.start_s if trials is not None else np.zeros(0)
    shown = _held(target, starts_s + 0.05)
    reach = np.linalg.norm(shown - position.at(starts_s), axis=1)
    reach = reach[np.isfinite(reach) & (reach > 0)]
    if not len(moving) or not len(reach):
        raise WizardError(
            f"{body!r} does not move to targets in what was collected: how fast the subject means "
            "to go cannot be known",
            STREAM,
        )
    return Pace(float(np.quantile(moving, TOP_QUANTILE)), 0.5 * float(np.median(reach)))


def with_intention(session: Session, body: str, pace: Pace, on_target: float) -> Session:
    """The session, its velocity replaced by the one that was meant.

    Args:
        session: in which the subject drove; with the position of `body` and of the target.
        body: what moved.
        pace: of the subject.
        on_target: how close counts as on the target, in the position's unit.

    Raises:
        WizardError: there is no target to mean.
    """
    moved, position, target = _signals(session, body)
    shown = _held(target, moved.t_s)
    meant = intended(position.at(moved.t_s), shown, pace, on_target)
    meant[_just_changed(moved.t_s, shown)] = np.nan
    name = f"{PLACE}/BehavioralTimeSeries/{body}_velocity"
    behavior = {**session.behavior, name: Behavior(moved.t_s, meant, moved.unit)}
    return replace(session, behavior=behavior)


def intended(cursor: Float64s, target: Float64s, pace: Pace, on_target: float) -> Float64s:
    """Straight to the target at the subject's pace; at rest on it.

    Args:
        cursor: (n, d).
        target: (n, d), NaN where none was shown.
        pace: of the subject.
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
    """Velocity and position of the body, and position of the target."""
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
            STREAM,
        )
    return moved, position, target


def _held(target: Behavior, t_s: Float64s) -> Float64s:
    """(n, d) the target shown at each time: the newest sample before it."""
    i = np.maximum(np.searchsorted(target.t_s, t_s, side="right") - 1, 0)
    return np.asarray(target.values[i], np.float64)


def _just_changed(t_s: Float64s, target: Float64s) -> np.ndarray:
    """(n,) bool, whether the target has changed within the last reaction time."""
    changed = np.flatnonzero((np.diff(target, axis=0) != 0).any(axis=1)) + 1
    if not len(changed):
        return np.zeros(len(t_s), np.bool_)
    last = np.searchsorted(changed, np.arange(len(t_s)), side="right") - 1
    since_s = t_s - t_s[changed[np.maximum(last, 0)]]
    return np.asarray((last >= 0) & (since_s < REACTION_S))
