"""Made-up sessions: of neurons that might have been, and of nothing that is scored or exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from decoders.train import train
from decoders.training.synthetic_sessions import MOST_SHIFTED_S, synthetic_sessions
from export.graphs.streaming import export_run
from streams.sessions.nwb.writer import write_session
from streams.sessions.session import Session
from tests.decoders.sessions import PHASE, VELOCITY, tuned_session

HOP_US = 50_000
CONFIG = """
name = "made-up"
split = "last:0.2"
[sessions]
glob = ["*.nwb"]
same_array = true
[beat]
hop_ms = 50
bin_ms = 50
rotary = false
[[outputs]]
name = "velocity"
behavior = "velocity"
unit = "cm/s"
[network]
n_latents = 2
d_unit = 8
d_value = 8
d_model = 8
d_memory = 8
[training]
steps = 3
lanes = 4
window_s = 1.0
context_s = 0.4
made_up = %d
"""


def made(session: Session, n: int = 3, seed: int = 0) -> list[Session]:
    return list(synthetic_sessions(session, n, hop_us=HOP_US, as_they_are=[PHASE], seed=seed))


def test_the_same_seed_makes_the_same_sessions_and_each_is_another() -> None:
    session = tuned_session()
    one, again = made(session), made(session)
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.spikes.t_us, b.spikes.t_us)
        np.testing.assert_array_equal(a.behavior[VELOCITY].values, b.behavior[VELOCITY].values)
    assert not np.array_equal(one[0].spikes.t_us, one[1].spikes.t_us)
    keys = [key for made_up in one for key in (*made_up.unit_keys, *session.unit_keys)]
    assert len({*keys}) == 4 * len(session.unit_keys)


def test_a_made_up_unit_is_a_thinned_and_moved_one() -> None:
    """Of one unit alone nothing else can be made."""
    session = tuned_session(n_units=1)
    for one in made(session, n=8):
        shifts_us = range(-round(MOST_SHIFTED_S * 1e6), round(MOST_SHIFTED_S * 1e6) + 1, HOP_US)
        t_us = one.spikes.t_us
        found = [s for s in shifts_us if np.isin(t_us - s, session.spikes.t_us).all()]
        assert len(found) == 1
        assert 0.5 * len(session.spikes) < len(t_us) <= len(session.spikes)
        assert 0 < t_us.min() <= t_us.max() <= one.duration_s * 1e6


def test_the_world_is_turned_about_its_middle_but_not_its_classes() -> None:
    session = tuned_session()
    for one in made(session):
        was, now = session.behavior[VELOCITY].values, one.behavior[VELOCITY].values
        middle = was.mean(axis=0)
        np.testing.assert_allclose(now.mean(axis=0), middle, atol=1e-9)
        np.testing.assert_allclose(
            np.linalg.norm(now - middle, axis=1), np.linalg.norm(was - middle, axis=1)
        )
        assert not np.allclose(now, was)
        np.testing.assert_array_equal(one.behavior[PHASE].values, session.behavior[PHASE].values)


@pytest.mark.parametrize("n", [0, 2])
def test_nothing_of_them_is_scored_or_exported(tmp_path: Path, n: int) -> None:
    for name in ("one", "two"):
        write_session(tuned_session(name, seed=len(name)), tmp_path / f"{name}.nwb")
    (tmp_path / "made-up.toml").write_text(CONFIG % n)
    run = train(tmp_path / "made-up.toml", out=tmp_path / "run")
    scored = json.loads((run / "metrics.json").read_text())["sessions"]
    assert list(scored) == ["made-up/2026-01-01/one", "made-up/2026-01-01/two"]
    manifest = export_run(run, tmp_path / "bundle").manifest
    assert manifest.session == "made-up/2026-01-01/two"
    assert [unit.key for unit in manifest.units] == [f"u{i}" for i in range(8)]
    assert manifest.training["sessions"] == list(scored)
    assert max(abs(v) for v in (*manifest.outputs[0].low, *manifest.outputs[0].high)) < 10.1
