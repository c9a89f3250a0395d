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

REACTION_S = 0.25
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
    """As fast as the cursor went, straight to the target; at rest on it.

    Args:
        velocity: (n, d) of the cursor.
        cursor: (n, d).
        target: (n, d), NaN where none was shown.
        on_target: how close counts as on it.

    Returns:
        (n, d), NaN where there was no target.
    """
    way = target - cursor
    away = np.linalg.norm(way, axis=1, keepdims=True)
    speed = np.linalg.norm(velocity, axis=1, keepdims=True)
    meant: Float64s = speed * way / np.maximum(away, 1e-9)
    return np.where(away <= on_target, 0.0 * way, meant)


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
