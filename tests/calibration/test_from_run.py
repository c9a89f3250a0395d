"""A decoder from recordings in which the subject drove, and what such recordings must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.days.closed_loop import drive
from calibration.errors import CalibrationError
from calibration.from_run.days import SHARES, learn_share, together
from calibration.from_run.make import make_from_run
from calibration.from_run.recordings import FromRunError, pace_for, read_driven
from calibration.from_run.told import lines_of
from calibration.wizard.behavior import Pace, with_intention
from calibration.wizard.meant import MOVES_AFTER_S, meant, velocity_path
from export.bundle import open_bundle
from service.redecode.driven import session_of_driven_run
from streams.messages import SpikeBatch
from streams.sessions.convert.convert import Reading
from streams.sessions.nwb.writer import write_session
from streams.sessions.session import Behavior, Session
from tests.calibration.recalibrated import BASE, DAY, SUBJECT
from tests.decoders.sessions import VELOCITY, tuned_session

PLACE = "processing/behavior"
POSITION, TARGET = f"{PLACE}/Position/cursor_position", f"{PLACE}/Position/target_position"
LABEL = velocity_path("cursor")


@pytest.fixture(scope="module")
def driven() -> Session:
    """Driving on a day on which the base decoder does badly."""
    return drive(BASE, SUBJECT, DAY, 60.0, seed=3).session


def made_of(session: Session, folder: Path, *, base: Path = BASE) -> Path:
    write_session(session, folder / "driven.nwb")
    return folder / "driven.nwb"


def read(path: Path) -> Session:
    return read_driven(path, open_bundle(BASE), "cursor", Reading(), session_of_driven_run)


def test_a_decoder_from_driving_is_better_than_the_one_that_drove(
    driven: Session, tmp_path: Path
) -> None:
    said: list[str] = []
    made = make_from_run(
        [made_of(driven, tmp_path)],
        BASE,
        tmp_path / "out",
        reading=Reading(),
        read_run=session_of_driven_run,
        say=said.append,
    )
    assert not made.why_not
    low, _ = made.verified.gains["yesterday"].ci
    assert low > 0.0
    assert made.verified.seconds == pytest.approx(20.0, abs=8.0)
    manifest = open_bundle(made.bundle).manifest
    assert manifest.parent_id == open_bundle(BASE).manifest.id
    assert manifest.name == "out"
    assert "agreement" in manifest.training
    # The next one from driving goes by the same pace.
    assert pace_for(open_bundle(made.bundle), [driven], "cursor")[0].top > 0.0
    text = lines_of(made)
    for part in ("the decoder that drove", "It is better", "never learnt from"):
        assert part in text
    assert "spikeloop swap" in text
    assert "spikeloop swap" not in lines_of(made, in_service=True)
    assert said
    assert made.as_json()["better"]


def test_the_held_out_end_is_not_learnt_from(driven: Session, tmp_path: Path) -> None:
    """Another end gives the same tables."""
    position = driven.behavior[POSITION]
    values = position.values.copy()
    values[position.t_s > 50.0] *= -1.0
    other = replace(
        driven, behavior={**driven.behavior, POSITION: replace(position, values=values)}
    )
    tables = []
    for name, session in (("one", driven), ("other", other)):
        (tmp_path / name).mkdir()
        path = made_of(session, tmp_path / name)
        made = make_from_run(
            [path],
            BASE,
            tmp_path / name / "out",
            reading=Reading(),
            read_run=session_of_driven_run,
        )
        tables.append(open_bundle(made.bundle).tables)
    for name, table in tables[0].items():
        np.testing.assert_array_equal(table, tables[1][name], err_msg=name)


@pytest.mark.parametrize("lacking", ["cursor_position", "target_position"])
def test_a_recording_that_does_not_tell_what_was_meant_is_refused(
    driven: Session, tmp_path: Path, lacking: str
) -> None:
    kept = {name: one for name, one in driven.behavior.items() if lacking not in name}
    path = made_of(replace(driven, behavior=kept), tmp_path)
    with pytest.raises(FromRunError, match=f"holds no '{lacking}'.*target_x"):
        read(path)


def test_a_recording_without_driving_is_refused(driven: Session, tmp_path: Path) -> None:
    target = driven.behavior[TARGET]
    nowhere = replace(target, values=np.full_like(target.values, np.nan))
    path = made_of(replace(driven, behavior={**driven.behavior, TARGET: nowhere}), tmp_path)
    with pytest.raises(FromRunError, match=r"for 0\.0 s, and 10 s are the least"):
        read(path)


def test_velocity_is_worked_out_where_only_positions_were_recorded(
    driven: Session, tmp_path: Path
) -> None:
    kept = {name: one for name, one in driven.behavior.items() if name != LABEL}
    found = read(made_of(replace(driven, behavior=kept), tmp_path))
    assert found.behavior[LABEL].unit == "cm/s"


def test_what_is_there_is_left_alone(driven: Session, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="exists"):
        make_from_run(
            [made_of(driven, tmp_path)],
            BASE,
            tmp_path,
            reading=Reading(),
            read_run=session_of_driven_run,
        )


def test_the_pace_that_was_measured_once_is_kept(driven: Session) -> None:
    bundle = open_bundle(BASE)
    told = {**bundle.manifest.training, "pace": {"top": 30.0, "slow_within": 4.0}}
    knows = replace(bundle, manifest=bundle.manifest.model_copy(update={"training": told}))
    assert pace_for(knows, [driven], "cursor")[0] == Pace(30.0, 4.0)
    pace, where = pace_for(bundle, [driven], "cursor")
    assert pace.top > 0.0
    assert "the decoder does not tell" in where


def test_the_label_comes_when_a_movement_would_have_shown_it(driven: Session) -> None:
    pace = Pace(30.0, 4.0)
    at_once = with_intention(driven, "cursor", pace, 0.5).behavior[LABEL]
    label = meant(driven, "cursor", pace, 0.5).behavior[LABEL]
    np.testing.assert_allclose(label.t_s, at_once.t_s + MOVES_AFTER_S)
    np.testing.assert_array_equal(label.values, at_once.values)


def other_neurons(session: Session) -> Session:
    """The same recording with units under one another's keys."""
    spikes = session.spikes
    unit = (spikes.unit + len(session.unit_keys) // 3) % len(session.unit_keys)
    order = np.lexsort((unit, spikes.t_us))
    moved = SpikeBatch(spikes.t_us[order], unit[order].astype(np.int32), spikes.count[order])
    return replace(session, spikes=moved)


def test_earlier_days_count_where_they_help_and_not_where_they_are_of_other_neurons() -> None:
    days = [tuned_session(str(i), 12, 60.0, seed=i) for i in range(3)]
    chosen = (20.0, 60.0)
    same = learn_share(days, VELOCITY, chosen)
    others = learn_share([*map(other_neurons, days[:2]), days[2]], VELOCITY, chosen)
    assert same.share > 0.0
    assert others.share == 0.0
    assert len(same.r2) == len(SHARES)
    assert same.r2[-1] > others.r2[-1]


def test_of_earlier_days_a_share_of_the_trials_is_learnt_from() -> None:
    days = [tuned_session(str(i), 6, 40.0, seed=i) for i in range(3)]
    whole, n = together(days, 0.5, VELOCITY)
    assert n == 3
    known = np.isfinite(whole.behavior[VELOCITY].values).all(axis=1)
    begins_s = (0.0, 41.0, 82.0)
    for begin_s, share in zip(begins_s, (0.25, 0.5, 1.0), strict=True):
        t_s = whole.behavior[VELOCITY].t_s - begin_s
        inside = (t_s >= 0.0) & (t_s <= 40.0)
        assert known[inside].mean() == pytest.approx(share, abs=0.08)
    alone, n = together(days, 0.0, VELOCITY)
    assert n == 1
    assert alone.duration_s == days[-1].duration_s
    assert isinstance(alone.behavior[VELOCITY], Behavior)
