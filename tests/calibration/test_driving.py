"""Who drives while trials are collected: the floor, the assistance, and what the subject meant."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.adaptation.adapted import Options
from calibration.errors import WizardError
from calibration.prequential.sequence import PredictThenLearn, Schedule
from calibration.prequential.traces import ExpectedGain, Recent, recent
from calibration.wizard.behavior import REACTION_S, Pace
from calibration.wizard.config import CalibrateConfig, DriveSection
from calibration.wizard.driving import (
    ASSIST_FALLS,
    Drives,
    assist_at,
    require_drivable,
    who_drives,
)
from calibration.wizard.learner import Learnt
from calibration.wizard.meant import MOVES_AFTER_S, Driven, meant, velocity_path
from export.bundle import DecoderBundle, open_bundle
from streams.sessions.session import Session
from streams.simulation.control import Block, block_of
from streams.simulation.openloop import record_open_loop
from tests.decoders.sessions import tuned_session

CONFIG = DriveSection(enabled=True)
GOOD = Recent(8, 0.45, 0.1, -0.2)


@pytest.mark.parametrize(
    ("score", "by"),
    [
        (GOOD, "today"),
        (replace(GOOD, n_trials=CONFIG.fewest_trials - 1), "task"),
        (replace(GOOD, today=CONFIG.least_r2 - 0.01), "task"),
        (replace(GOOD, today=-3.0, yesterday=0.4), "yesterday"),
        (replace(GOOD, yesterday=0.6), "yesterday"),
        (replace(GOOD, shuffled=0.4), "task"),
        (replace(GOOD, today=math.nan), "task"),
    ],
    ids=["good", "too early", "below the floor", "worse", "worse yet good", "chance", "unknown"],
)
def test_who_drives(score: Recent, by: str) -> None:
    chosen = who_drives(score, CONFIG)
    assert chosen.by == by
    assert bool(chosen.why) == (by != "today")


def test_assistance_falls_as_the_score_rises() -> None:
    r2 = np.linspace(-0.5, 1.0, 40)
    shares = [assist_at(float(one), CONFIG) for one in r2]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == assist_at(CONFIG.least_r2, CONFIG) == pytest.approx(CONFIG.assist)
    assert assist_at(CONFIG.full_r2, CONFIG) == 0.0


def test_assistance_starts_high_and_falls_step_by_step() -> None:
    best, drives, shares = replace(GOOD, today=0.9), Drives("task"), []
    for _ in range(5):
        drives = who_drives(best, CONFIG, drives)
        shares.append(drives.assist)
    assert shares[0] == CONFIG.assist
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0
    assert max(a - b for a, b in pairwise(shares)) <= ASSIST_FALLS + 1e-9
    # It rises at once.
    assert who_drives(replace(GOOD, today=CONFIG.least_r2), CONFIG, drives).assist == CONFIG.assist


def test_the_task_reads_who_drives() -> None:
    drives = Drives("today", 0.35)
    event = {"event": "mark", "detail": {"text": drives.mark}}
    assert block_of(event) == Block("closed-loop", drives.assist)
    nobody = {"event": "mark", "detail": {"text": who_drives(Recent(), CONFIG).mark}}
    assert block_of(nobody) == Block("open-loop")


@pytest.mark.parametrize(
    ("sections", "closed_form", "told"),
    [
        ({"cues": {"builtin": True}}, True, "moves the cursor by itself"),
        ({"deploy": {"control": ""}}, True, "there is no daemon"),
        ({}, False, "decoders are made afterwards"),
    ],
)
def test_a_config_by_which_nobody_could_drive_is_refused(
    sections: dict[str, Any], closed_form: bool, told: str
) -> None:
    config = CalibrateConfig.model_validate({"drive": {"enabled": True}, **sections})
    with pytest.raises(WizardError, match=told):
        require_drivable(config, closed_form=closed_form)


@pytest.mark.parametrize("seconds", [40.0, 119.0, 120.0])
def test_what_more_would_gain_is_believed_later_where_the_subject_drives(seconds: float) -> None:
    learnt = Learnt(seconds=seconds, gain=ExpectedGain(mean=0.0, most=0.001))
    drives = CalibrateConfig.model_validate({"drive": {"enabled": True}})
    assert learnt.more_helps(CalibrateConfig()) is False
    assert learnt.more_helps(drives) is (None if seconds < drives.drive.least_s else False)


def _part(seconds: float = 20.0) -> Session:
    session = record_open_loop(1, 3, seconds / 60.0, task="centre-out", seed=2)
    return replace(session, provenance={"lsl_time_of_start": "1000.0"})


def test_what_was_meant_is_the_label_only_where_it_was_driven() -> None:
    part, pace = _part(), Pace(20.0, 5.0)
    driven = Driven([(1008.0, 1014.0)], pace, "cursor", 0.5)
    name = velocity_path("cursor")
    before, after = part.behavior[name], driven.labelled(part).behavior[name]
    inside = (before.t_s >= 8.0) & (before.t_s < 14.0)
    unsure = np.zeros(len(inside), np.bool_)
    for change_s in (8.0, 14.0):
        since_s = before.t_s - change_s
        unsure |= (since_s >= 0.0) & (since_s < REACTION_S + MOVES_AFTER_S)
    outside = ~inside & ~unsure
    np.testing.assert_array_equal(after.values[outside], before.values[outside])
    assert np.isnan(after.values[unsure]).all()
    label = meant(part, "cursor", pace, 0.5).behavior[name].at(before.t_s)
    chosen = inside & ~unsure
    np.testing.assert_array_equal(after.values[chosen], label[chosen])
    assert np.isfinite(after.values[chosen]).any()
    assert driven.labelled(replace(part, provenance={"lsl_time_of_start": "2000.0"})) == replace(
        part, provenance={"lsl_time_of_start": "2000.0"}
    )


def test_a_drive_without_an_end_lasts() -> None:
    part = _part()
    name = velocity_path("cursor")
    labelled = Driven([(1008.0, math.inf)], Pace(20.0, 5.0), "cursor", 0.5).labelled(part)
    late = part.behavior[name].t_s > 9.0
    moved, told = part.behavior[name].values[late], labelled.behavior[name].values[late]
    assert not np.isclose(moved, told).all(axis=1).any()


@pytest.fixture(scope="module")
def base(folder: Path) -> DecoderBundle:
    """A decoder that has not met the session's units."""
    return open_bundle(folder / "counts")


def _spoilt(session: Session, how: str) -> Session:
    """The session, whose units are not what they were from second 20 on."""
    spikes, from_us = session.spikes, 20_000_000
    later = spikes.t_us > from_us
    if how == "renumbered":
        unit = np.where(later, (spikes.unit + 5) % 13, spikes.unit).astype(np.int32)
        return replace(session, spikes=replace(spikes, unit=unit))
    if how == "one line":
        name = next(iter(session.behavior))
        moved = session.behavior[name]
        values = moved.values.copy()
        values[:, 1] = 1e-3 * np.random.default_rng(0).standard_normal(len(values))
        return replace(session, behavior={**session.behavior, name: replace(moved, values=values)})
    kept = ~later
    return replace(
        session,
        spikes=replace(
            spikes, t_us=spikes.t_us[kept], unit=spikes.unit[kept], count=spikes.count[kept]
        ),
    )


@pytest.mark.parametrize("how", ["renumbered", "dead", "one line"])
def test_units_that_are_no_more_what_they_were_end_the_driving(
    base: DecoderBundle, how: str
) -> None:
    """Until what was learnt anew has proved itself."""
    options = Options(True, False, True, 0, None)
    config = DriveSection(enabled=True, recent_trials=4)
    chosen = {}
    for name, session in (
        ("whole", tuned_session("new", 13, 30.0, seed=9)),
        (how, _spoilt(tuned_session("new", 13, 30.0, seed=9), how)),
    ):
        # Nothing is learnt after second 18: the decoder in service meets what it does not know.
        sequence = PredictThenLearn(base, options, Schedule(6.0, 1000.0))
        sequence.update(session, is_over=True)
        chosen[name] = who_drives(recent(sequence.traces, config.recent_trials), config)
    assert chosen["whole"].by == "today"
    assert chosen[how].by != "today"
