"""What the subject meant while it drove: its velocity turned to the target, zero on it.

Gilja et al. 2012 (ReFIT): a subject in control means to go straight to the target, whatever the
decoder made of it, and to rest once it is there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.wizard.errors import STREAM, WizardError
from streams.messages import Float64s
from streams.session import Behavior, Session

N_BINS = 24
REACTION_S = 0.4
"""After another target has appeared, nobody knows yet what the subject means."""
PLACE = "processing/behavior"


def with_intention(session: Session, body: str, on_target: float) -> Session:
    """The session, its velocity replaced by the one that was meant.

    Args:
        session: in which the subject drove; with the position of `body` and of the target.
        body: what moved.
        on_target: how close counts as on the target, in the position's unit.

    Raises:
        WizardError: there is no target to mean.
    """
    position = session.behavior.get(f"{PLACE}/Position/{body}_position")
    target = session.behavior.get(f"{PLACE}/Position/target_position")
    name = f"{PLACE}/BehavioralTimeSeries/{body}_velocity"
    moved = session.behavior.get(name)
    if position is None or target is None or moved is None:
        raise WizardError(
            f"the streams give no position of {body!r} and of the target: what the subject means "
            "cannot be known. Send `target_x`, `target_y` beside the cursor",
            STREAM,
        )
    shown = _held(target, moved.t_s)
    meant = intended(moved.values, position.at(moved.t_s), shown, on_target)
    meant[_just_changed(moved.t_s, shown)] = np.nan
    behavior = {**session.behavior, name: Behavior(moved.t_s, meant, moved.unit)}
    return replace(session, behavior=behavior)


def intended(velocity: Float64s, cursor: Float64s, target: Float64s, on_target: float) -> Float64s:
    """Straight to the target, as fast as the cursor usually came nearer from there; at rest on it.

    The speed of one instant is the decoder's noise as much as the subject's will; the mean over all
    instants at that distance is not.

    Args:
        velocity: (n, d) of the cursor.
        cursor: (n, d).
        target: (n, d), NaN where none was shown.
        on_target: how close counts as on it.

    Returns:
        (n, d), NaN where there was no target.
    """
    way = target - cursor
    away = np.linalg.norm(way, axis=1)
    straight = way / np.maximum(away, 1e-9)[:, None]
    speed = usual_speed(away, (velocity * straight).sum(axis=1))
    speed[away <= on_target] = 0.0
    meant: Float64s = speed[:, None] * straight
    return meant


def usual_speed(away: Float64s, progress: Float64s) -> Float64s:
    """The mean progress at each distance, over bins that hold equally many samples.

    Args:
        away: (n,) distance to the target, NaN where there is none.
        progress: (n,) speed toward it.

    Returns:
        (n,) not below zero, NaN where the distance is.
    """
    known = np.isfinite(away) & np.isfinite(progress)
    if np.count_nonzero(known) < N_BINS:
        return np.full(len(away), np.nan)
    order = np.flatnonzero(known)[np.argsort(away[known])]
    bins = np.array_split(order, N_BINS)
    middles = [float(away[one].mean()) for one in bins]
    means = [max(0.0, float(progress[one].mean())) for one in bins]
    usual: Float64s = np.interp(away, [0.0, *middles], [0.0, *means])
    return usual


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
