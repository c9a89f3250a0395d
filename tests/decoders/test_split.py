"""Train and test parts by trials, and targets under a mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from decoders.errors import TrainingError
from decoders.training.recordings import Recording, lead_grid_s, record
from decoders.training.split import Part
from streams.errors import SessionError
from streams.sessions.session import Behavior, Session, Trials
from tests.decoders.sessions import PHASE, VELOCITY, small_config, tuned_session

KINDS = ("train", "val", "train", "none")
HOP_S = 0.02


def split_session(kinds: tuple[str, ...] = KINDS) -> Session:
    """40 s with trials of 1.5 s, one every 2 s, and a column that says which part each is."""
    session = tuned_session()
    assert session.trials is not None
    n = len(session.trials)
    columns = {"split": np.resize(np.array(kinds), n), "good": np.arange(n) % 8 < 5}
    return replace(session, trials=replace(session.trials, columns=columns))


def ends_s(recording: Recording) -> np.ndarray:
    return np.arange(1, recording.n_bins + 1) * HOP_S


def inside(t_s: np.ndarray, session: Session, chosen: np.ndarray) -> np.ndarray:
    trials = session.trials
    assert trials is not None
    held = np.zeros(len(t_s), np.bool_)
    for start_s, stop_s in zip(trials.start_s[chosen], trials.stop_s[chosen], strict=True):
        held |= (t_s > start_s + 1e-9) & (t_s <= stop_s + 1e-9)
    return held


def columns_of(session: Session) -> dict[str, np.ndarray]:
    assert session.trials is not None
    return dict(session.trials.columns)


def test_trials_of_a_column_are_learnt_from_and_others_tested() -> None:
    session = split_session()
    recording = record(session, small_config(split="trials:split"))
    t_s, kind = ends_s(recording), columns_of(session)["split"]
    i_present = lead_grid_s(small_config().lead).index(0.0)
    learnt = np.isfinite(recording.targets[i_present]).all(axis=1)
    np.testing.assert_array_equal(learnt, inside(t_s, session, kind == "train"))
    np.testing.assert_array_equal(recording.tested, inside(t_s, session, kind == "val"))
    scored = np.isfinite(recording.test_targets).all(axis=1)
    np.testing.assert_array_equal(scored, recording.tested)
    assert recording.train == Part(0, recording.n_bins)
    first, last = np.flatnonzero(recording.tested)[[0, -1]]
    assert recording.test == Part(first, last + 1)


def test_conditions_choose_trials() -> None:
    session = split_session()
    split = {"train": "split == 'train' and good", "test": "split in ['val', 'none'] and not good"}
    recording = record(session, small_config(split=split))
    t_s, columns = ends_s(recording), columns_of(session)
    learnt = np.isfinite(recording.targets[2]).all(axis=1)
    wanted = (columns["split"] == "train") & columns["good"]
    np.testing.assert_array_equal(learnt, inside(t_s, session, wanted))
    tested = (columns["split"] != "train") & ~columns["good"]
    np.testing.assert_array_equal(recording.tested, inside(t_s, session, tested))


def test_nothing_that_is_learnt_looks_out_of_the_train_trials() -> None:
    session = split_session()
    lagged: list[dict[str, Any]] = [{"name": "velocity", "behavior": "velocity", "lag_s": 0.06}]
    config = small_config(split="trials:split", outputs=lagged)
    recording = record(session, config)
    train = columns_of(session)["split"] == "train"
    for i_cut, cut in enumerate(recording.cuts):
        t_s = np.arange(1, len(cut.tokens) + 1) * HOP_S + i_cut * 0.005
        for lead_s, targets in zip(lead_grid_s(config.lead), cut.targets, strict=True):
            known = np.isfinite(targets).all(axis=1)
            for shift_s in (0.0, lead_s, lead_s + 0.06):
                assert inside(t_s + shift_s, session, train)[known].all()
            assert known.any()


@pytest.mark.parametrize(
    ("kinds", "split", "error", "text"),
    [
        (("val",), "trials:split", TrainingError, "0 meet \"split == 'train'\""),
        (KINDS, {"train": "good", "test": "split == 'val'"}, TrainingError, "none be in both"),
        (KINDS, "trials:part", SessionError, "names 'part', which is no column"),
    ],
)
def test_splits_that_cannot_be_are_refused(
    kinds: tuple[str, ...], split: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        record(split_session(kinds), small_config(split=split))


def test_overlapping_train_and_test_trials_are_refused() -> None:
    """Trial tables may hold nested stretches: 'all' beside each reach."""
    session = split_session()
    trials = Trials(
        np.array([0.0, 4.0]), np.array([20.0, 6.0]), {"split": np.array(["train", "val"])}
    )
    with pytest.raises(TrainingError, match="none be in both"):
        record(replace(session, trials=trials), small_config(split="trials:split"))


def masked_session() -> Session:
    """Velocity and phase, of which the mask holds what is not within 10 to 12 s or 34 to 36 s."""
    session = tuned_session()
    behavior = {}
    for path in (VELOCITY, PHASE):
        signal = session.behavior[path]
        mask = ~(
            ((signal.t_s >= 10) & (signal.t_s <= 12)) | ((signal.t_s >= 34) & (signal.t_s <= 36))
        )
        behavior[path] = signal.masked(Behavior(signal.t_s, mask[:, None].astype(float), "bool"))
    return replace(session, behavior=behavior)


@pytest.mark.parametrize(
    ("mask_for", "learnt", "scored"), [("both", 0, 0), ("train", 0, 101), ("score", 101, 0)]
)
def test_a_mask_is_for_learning_for_scoring_or_both(
    mask_for: str, learnt: int, scored: int
) -> None:
    config = small_config(sessions={"glob": ["*.nwb"], "mask": "eval_mask", "mask_for": mask_for})
    recording = record(masked_session(), config)
    t_s = ends_s(recording)
    known = np.isfinite(recording.targets[2]).all(axis=1)
    assert np.count_nonzero(known[(t_s > 9.99) & (t_s < 12.01)]) == learnt
    assert known[(t_s > 12.02) & (t_s < 30)].all()
    known = np.isfinite(recording.test_targets).all(axis=1)
    assert np.count_nonzero(known[(t_s > 33.99) & (t_s < 36.01)]) == scored
    assert known[(t_s > 36.02) & (t_s < 39.9)].all()
