"""The built-in task sends markers, cursor and targets as a laboratory's own would."""

from __future__ import annotations

import uuid

import numpy as np

from calibration.wizard.config import CuesSection
from calibration.wizard.recording import Cues
from streams.clock import ManualClock
from streams.lsl.inlets import Inlet, find_inlet
from streams.sessions.convert.signals import trials_of

N_TRIALS = 32
CONFIG = CuesSection(n_targets=8, reach_cm=10.0, move_s=0.5, hold_s=0.1)


def all_of(inlet: Inlet) -> tuple[np.ndarray, np.ndarray]:
    """Everything that was sent, once it has come."""
    values, stamps = inlet.pull(5.0)
    while len(stamps):
        more, at_s = inlet.pull(0.3)
        if not len(at_s):
            break
        values, stamps = np.concatenate([values, more]), np.concatenate([stamps, at_s])
    return values, stamps


def test_every_direction_is_shown_and_every_target_reached() -> None:
    clock = ManualClock(100.0)
    cues = Cues(CONFIG, clock, f"cues-{uuid.uuid4().hex[:12]}", seed=3)
    try:
        markers = find_inlet("Markers", name=f"{cues.name}-markers")
        position = find_inlet("Position", name=f"{cues.name}-cursor")
        for inlet in (markers, position):
            inlet.open()
        assert cues._markers.wait_for_consumers(5.0)
        assert cues._position.wait_for_consumers(5.0)
        for _ in range(N_TRIALS):
            cues.show_for(CONFIG.move_s + CONFIG.hold_s + 0.02)
        texts, at_s = all_of(markers)
        values, t_s = all_of(position)
    finally:
        cues.close()
    words = [text.decode() for (text,) in texts]
    trials = trials_of(words, at_s, trial_start="trial_start", trial_stop="trial_stop")
    assert len(trials) >= N_TRIALS - 2
    outward = [(one["x"], one["y"]) for one in trials if (one["x"], one["y"]) != (0.0, 0.0)]
    assert len(set(outward[:8])) == 8
    for one in trials:
        where = np.argmin(np.abs(t_s - one["stop_s"]))
        np.testing.assert_allclose(values[where - 1, :2], [one["x"], one["y"]], atol=0.01)
    np.testing.assert_allclose(np.hypot(*np.array(outward).T), 10.0, atol=1e-3)
    assert np.hypot(*np.diff(values[:, :2], axis=0).T).max() < 0.5
