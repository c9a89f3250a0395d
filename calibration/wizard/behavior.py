"""The behaviour that the decoder follows: whether its channels are there, and what to change."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from calibration.wizard.aims import Aim
from calibration.wizard.config import BehaviorSection
from streams.errors import RecordingError, StreamsError
from streams.lsl.axes import axes_of
from streams.sessions.session import Session
from streams.sessions.xdf.reading import Recorded, Recording


def stream_of(recording: Recording, config: BehaviorSection) -> Recorded | None:
    """The recorded stream of behaviour; None where it is not there, or not one."""
    try:
        return recording.of_type(config.type)
    except RecordingError:
        return None


def what_to_change(stream: Recorded | None, aim: Aim, config: BehaviorSection) -> str:
    """Say which line of the config makes a stream the behaviour of an output.

    Args:
        stream: that was recorded.
        aim: the output, whose behaviour is not there.
        config: `[behavior]`.
    """
    if stream is None:
        return "name the stream under [behavior], by `type` and `name`"
    labels = [label or f"channel_{i}" for i, label in enumerate(stream.labels)]
    labels += [f"channel_{i}" for i in range(len(labels), stream.description.n_channels)]
    body = body_of(aim)
    seen = f"its channels are {', '.join(map(repr, labels))}"
    if len(labels) < aim.dims:
        return f"{seen}, and the decoder has {aim.dims} dimensions: name another stream"
    lines = [f"channels = {json.dumps(_likely(labels, aim.dims))}"]
    if config.body != body:
        lines.insert(0, f"body = {json.dumps(body)}")
    axes = "xyz"[: aim.dims]
    return (
        f"{seen}: label them {', '.join(f'{body}_{axis}' for axis in axes)}, or say under "
        f"[behavior] which are {', '.join(axes)}: {' and '.join(f'`{line}`' for line in lines)}"
    )


def body_of(aim: Aim) -> str:
    """What moves in the behaviour that an output follows: `cursor` of `.../cursor_velocity`."""
    name = aim.behavior.rpartition("/")[2]
    return name.removesuffix("_velocity").removesuffix("_position")


def _likely(labels: Sequence[str], dims: int) -> list[str]:
    """Channels to begin with: those of one thing that has so many axes, else the first."""
    for columns in axes_of(labels).values():
        if len(columns) == dims:
            return [labels[i] for i in columns]
    return list(labels[:dims])


def unknown_samples(stream: Recorded) -> tuple[int, int]:
    """How many samples hold NaN or infinity, and how many there are."""
    known = np.asarray(np.isfinite(stream.values.astype(np.float64)).all(axis=1))
    return int(np.count_nonzero(~known)), len(stream)


def unknown_in(session: Session, aims: Sequence[Aim]) -> str:
    """Say how many positions of a session are unknown; "" where none is."""
    for body in dict.fromkeys(body_of(aim) for aim in aims):
        try:
            values = session.signal(f"{body}_position").values
        except StreamsError:
            continue
        n, n_unknown = len(values), int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if n_unknown:
            return f"{n_unknown} of {n} positions ({n_unknown / n:.1%}) are NaN and left out"
    return ""
