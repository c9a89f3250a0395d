"""Labels of a subject that drove: what it meant, when a movement would have shown it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.wizard.behavior import PLACE, REACTION_S, Pace, with_intention
from streams.sessions.session import Behavior, Session

MOVES_AFTER_S = 0.15
"""A movement follows what is meant by so much (Moran and Schwartz 1999: 0.145 s in motor cortex).

Decoders learnt from movements. A label without that delay would ask them to know it beforehand.
"""


@dataclass(frozen=True, slots=True)
class Driven:
    """Times in which a decoder moved the cursor.

    Attributes:
        spans_s: begin and end of each, seconds on LSL's clock; an end of infinity lasts.
        pace: the subject's, from its movements before.
        body: what was driven.
        on_target: how close counts as on the target, in the position's unit.
    """

    spans_s: Sequence[tuple[float, float]]
    pace: Pace
    body: str
    on_target: float

    def labelled(self, part: Session) -> Session:
        """Put what was meant in the place of one recording's velocity, where it was driven.

        Raises:
            WizardError: there is no target to mean.
        """
        begins_s = float(part.provenance["lsl_time_of_start"])
        spans = [(begin_s - begins_s, end_s - begins_s) for begin_s, end_s in self.spans_s]
        spans = [(begin_s, end_s) for begin_s, end_s in spans if end_s > 0.0]
        if not spans or min(spans)[0] > part.duration_s:
            return part
        name = velocity_path(self.body)
        moved = part.behavior[name]
        told = meant(part, self.body, self.pace, self.on_target).behavior[name]
        t_s, values = moved.t_s, moved.values.astype(np.float64)
        for begin_s, end_s in spans:
            here = (t_s >= begin_s) & (t_s < end_s)
            values[here] = told.at(t_s[here])
            # Nobody knows yet what a subject means whose cursor has just changed hands.
            for change_s in (begin_s, end_s):
                values[(t_s >= change_s) & (t_s < change_s + REACTION_S + MOVES_AFTER_S)] = np.nan
        behavior = {**part.behavior, name: Behavior(t_s, values, moved.unit)}
        return replace(part, behavior=behavior)


def velocity_path(body: str) -> str:
    """Return the NWB path of the velocity, where `meant` puts the label."""
    return f"{PLACE}/BehavioralTimeSeries/{body}_velocity"


def meant(session: Session, body: str, pace: Pace, on_target: float) -> Session:
    """Put what was meant in the place of the velocity, when a movement would have shown it."""
    label = velocity_path(body)
    told = with_intention(session, body, pace, on_target)
    signal = told.behavior[label]
    later = replace(signal, t_s=signal.t_s + MOVES_AFTER_S)
    return replace(told, behavior={**told.behavior, label: later})
