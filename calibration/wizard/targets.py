"""The behaviour that the base decoder follows, and the config lines that find it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from calibration.choices import TargetSpec, target_specs
from calibration.errors import BUNDLE, WizardError
from calibration.wizard.config import BehaviorSection, MarkersSection
from export.bundle import DecoderBundle
from streams.errors import RecordingError, StreamsError
from streams.lsl.axes import axes_of
from streams.sessions.session import Session
from streams.sessions.xdf.loading import Recorded
from streams.sessions.xdf.reading import Recording

MARKERS_SHOWN = 10


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
            BUNDLE,
        )
    return targets


def body_of(target: TargetSpec) -> str:
    """Name the thing that moves: `cursor` in `.../cursor_velocity`."""
    name = target.behavior.rpartition("/")[2]
    return name.removesuffix("_velocity").removesuffix("_position")


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
    body = body_of(target)
    seen = f"its channels are {', '.join(map(repr, labels))}"
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
    for columns in axes_of(labels).values():
        if len(columns) == dims:
            return [labels[i] for i in columns]
    return list(labels[:dims])


def unknown_samples(stream: Recorded) -> tuple[int, int]:
    """Count the samples that hold NaN or infinity, and all samples."""
    known = np.asarray(np.isfinite(stream.values.astype(np.float64)).all(axis=1))
    return int(np.count_nonzero(~known)), len(stream)


def unknown_positions(session: Session, targets: Sequence[TargetSpec]) -> str:
    """Say how many positions are unknown; "" where none is."""
    for body in dict.fromkeys(map(body_of, targets)):
        try:
            values = session.signal(f"{body}_position").values
        except StreamsError:
            continue
        n, n_unknown = len(values), int(np.count_nonzero(~np.isfinite(values).all(axis=1)))
        if n_unknown:
            return f"{n_unknown} of {n} positions ({n_unknown / n:.1%}) are NaN and left out"
    return ""


def markers_shown(texts: Sequence[str]) -> str:
    """Show up to ten different markers."""
    different = list(dict.fromkeys(texts))
    named = ", ".join(repr(text) for text in different[:MARKERS_SHOWN])
    n_more = len(different) - MARKERS_SHOWN
    return f"{len(texts)} markers came: {named}{f' and {n_more} others' if n_more > 0 else ''}"


def marker_advice(config: MarkersSection, texts: Sequence[str]) -> str:
    """Say which config lines make trials from the markers that came."""
    # Different markers mostly differ in their first word; what follows are numbers.
    words = list(dict.fromkeys(text.split()[0] for text in texts if text.split()))
    start, stop = [*words, *("...", "...")][:2]
    return (
        f"no pair of them begins with {config.trial_start!r} and {config.trial_stop!r}. Say under "
        f"[markers] how yours begin, in the way of `trial_start = {json.dumps(start)}` and "
        f"`trial_stop = {json.dumps(stop)}`"
    )
