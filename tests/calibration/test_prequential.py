"""Each trial is decoded by a decoder made before it: the sequence, its score, its next gain."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.adaptation.adapted import Options
from calibration.adaptation.calibration_data import prepare
from calibration.adaptation.closed_form import ClosedForm
from calibration.prequential.sequence import PredictThenLearn, Schedule, until
from calibration.prequential.traces import (
    HALF,
    Traces,
    expected_gain,
    load,
    recent,
    second_half,
)
from export.bundle import DecoderBundle, open_bundle
from export.shipped import bundle_path
from streams.r2 import r2_score
from streams.sessions.session import Session
from streams.simulation.openloop import record_open_loop
from tests.decoders.sessions import VELOCITY, tuned_session

OPTIONS = Options(same_array=False, unfreeze=False, follow_drift=True, seed=0, on_progress=None)
SCHEDULE = Schedule(6.0, 4.0)
DURATION_S = 30.0


@pytest.fixture(scope="module")
def base(folder: Path) -> DecoderBundle:
    """A decoder that has not met the session's units."""
    return open_bundle(folder / "counts")


def session_of(duration_s: float = DURATION_S) -> Session:
    return tuned_session("new", 13, duration_s, seed=9)


def sequence_of(base: DecoderBundle, session: Session) -> PredictThenLearn:
    sequence = PredictThenLearn(base, OPTIONS, SCHEDULE)
    sequence.update(session, is_over=True)
    return sequence


def traces_of(sequence: PredictThenLearn) -> Traces:
    assert sequence.traces is not None
    return sequence.traces


def test_a_session_that_grows_gives_the_sequence_of_the_whole(base: DecoderBundle) -> None:
    session = session_of()
    whole, growing = (
        traces_of(sequence_of(base, session)),
        PredictThenLearn(base, OPTIONS, SCHEDULE),
    )
    for end_s in (5.0, 7.3, 8.8, 15.1, 15.2, 29.0):
        growing.update(until(session, end_s, base.row_of_key))
    growing.update(session, is_over=True)
    grown = traces_of(growing)
    np.testing.assert_array_equal(grown.t_s, whole.t_s)
    np.testing.assert_array_equal(grown.learnt_s, whole.learnt_s)
    for name, values in whole.decodes.items():
        np.testing.assert_array_equal(grown.decodes[name], values)


def test_each_trial_is_decoded_by_a_decoder_of_what_came_before(base: DecoderBundle) -> None:
    """Made again by hand: the last decoder knows the data until it was made, and no more."""
    session = session_of()
    sequence = sequence_of(base, session)
    traces = traces_of(sequence)
    assert (traces.learnt_s < traces.t_s).all()
    made_s = float(traces.learnt_s[-1])
    begun_s = np.array([t for t in session.trials.start_s if t >= made_s])
    last = traces.learnt_s == made_s
    assert traces.t_s[last].min() > begun_s.min()
    closed = ClosedForm(base)
    before = prepare(base, until(session, made_s, base.row_of_key), 1e6, None, None)
    found = closed.adapt(before, OPTIONS)
    data = prepare(base, until(session, float(session.trials.stop_s[-1]), {}), 1e6, None, None)
    first = int(np.searchsorted(data.ends_s, traces.t_s[last][0] - 1e-6))
    again = closed.decode(found, data, first, data.recording.n_bins)[:, :2]
    at = np.rint(traces.t_s[last] / data.hop_s).astype(int) - 1 - first
    np.testing.assert_allclose(traces.decodes["today"][last], again[at], atol=1e-5)


def test_later_data_do_not_change_what_was_scored(base: DecoderBundle) -> None:
    session = session_of()
    spikes = session.spikes
    later = spikes.t_us > 20_000_000
    moved = np.where(later, (spikes.unit + 5) % 13, spikes.unit).astype(np.int32)
    spoilt = replace(session, spikes=replace(spikes, unit=moved))
    true, other = (traces_of(sequence_of(base, one)) for one in (session, spoilt))
    early = true.t_s < 20.0
    assert early.any()
    for name, values in true.decodes.items():
        np.testing.assert_array_equal(values[early], other.decodes[name][early])
    assert np.mean(r2_score(other.decodes["today"][~early], other.actual[~early])) < np.mean(
        r2_score(true.decodes["today"][~early], true.actual[~early])
    )


def test_todays_is_good_and_the_control_is_not(base: DecoderBundle, tmp_path: Path) -> None:
    unseen = tuple(f"u{i + 100}" for i in range(13))
    sequence = sequence_of(base, replace(session_of(), unit_keys=unseen))
    kept = second_half(traces_of(sequence))
    r2 = {name: np.mean(r2_score(kept.decodes[name], kept.actual)) for name in kept.decodes}
    assert r2["today"] > 0.5
    assert r2["today"] > max(r2["shuffled"], r2["yesterday"]) + 0.2
    assert sequence.curve[-1].r2 == pytest.approx(r2["today"])
    low, high = sequence.curve[-1].ci
    assert low < r2["today"] < high
    traces_of(sequence).save(tmp_path / "traces.npz")
    again = load(tmp_path / "traces.npz")
    np.testing.assert_array_equal(again.decodes[HALF], traces_of(sequence).decodes[HALF])


def test_the_first_decoder_is_told_by_its_own_trials_each_left_out(base: DecoderBundle) -> None:
    """Labels of other movements are fitted as well, but tell nothing of trials left out."""
    session = until(session_of(), 9.0, {})
    signal = session.behavior[VELOCITY]
    n_each = round(0.3 / float(np.diff(signal.t_s).mean()))
    drawn = np.random.default_rng(0).normal(size=signal.values.shape)
    smooth = np.stack([np.convolve(one, np.ones(n_each) / n_each**0.5, "same") for one in drawn.T])
    unrelated = replace(signal, values=smooth.T)
    mixed = replace(session, behavior={**session.behavior, VELOCITY: unrelated})
    scores = []
    for one in (session, mixed):
        sequence = PredictThenLearn(base, OPTIONS, SCHEDULE)
        sequence.update(one)
        assert sequence.n_made == 1
        assert sequence.traces is None
        scores.append(recent(sequence.newest_scored, 8))
    true, false = scores
    assert true.n_trials >= 3
    assert true.today > 0.4 > 0.15 > false.today
    assert true.shuffled < true.today - 0.2


def test_the_first_decoders_trials_count_among_the_newest_and_are_not_verified(
    base: DecoderBundle,
) -> None:
    sequence = sequence_of(base, session_of())
    told, traces = sequence.newest_scored, traces_of(sequence)
    assert told is not None
    own = told.n_trials - traces.n_trials
    assert own >= 3
    assert (np.diff(told.block) >= 0).all()
    assert (np.diff(told.t_s) > 0).all()
    assert told.t_s[-1] == traces.t_s[-1]
    # Of each decoder's own making nothing is verified.
    assert (traces.learnt_s < traces.t_s).all()
    assert (told.learnt_s[: len(told) - len(traces)] >= told.t_s[: len(told) - len(traces)]).all()


def test_what_nothing_can_be_learnt_from_is_said_and_not_raised(base: DecoderBundle) -> None:
    session = session_of()
    signal = session.behavior[VELOCITY]
    line = replace(signal, values=signal.values * [1.0, 0.0])
    one_way = replace(session, behavior={**session.behavior, VELOCITY: line})
    frozen = replace(
        session, behavior={**session.behavior, VELOCITY: replace(signal, values=0 * signal.values)}
    )
    for bad, said in ((one_way, "one direction only"), (frozen, "frozen")):
        sequence = sequence_of(base, bad)
        assert said in sequence.refused
        assert sequence.n_made == 0
        assert sequence.traces is None
    unmarked = sequence_of(base, replace(session, trials=None))
    assert unmarked.n_made == 0


def made_up(c: float, n_trials: int = 60, seed: int = 0) -> Traces:
    """Decoders whose error falls as `c` over the time, with 1 s a trial."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(0.1, n_trials, 0.02)
    learnt_s = np.maximum(10.0, t_s // 5 * 5)
    half_s = np.where(learnt_s >= 20.0, learnt_s / 2.0, np.nan)
    actual = rng.normal(size=(len(t_s), 2))

    def decoded(of_s: np.ndarray) -> np.ndarray:
        error = np.sqrt(0.3 + c / of_s)[:, None]
        return np.asarray(actual + error * noise)

    noise = rng.normal(size=actual.shape)
    decodes = {name: decoded(learnt_s) for name in ("today", "yesterday", "wiener", "shuffled")}
    decodes[HALF] = decoded(half_s)
    return Traces(t_s, t_s.astype(np.int64), learnt_s, half_s, actual, decodes)


@pytest.mark.parametrize("c", [0.0, 1.0, 4.0])
def test_the_gain_of_more_data_is_foreseen(c: float) -> None:
    found = expected_gain(made_up(c), 60.0, 0)
    assert found is not None
    true = c * (1.0 / 60.0 - 1.0 / 90.0)
    assert found.mean == pytest.approx(true, abs=0.15 * true + 1e-9)
    assert found.most >= found.mean - 1e-12


def test_too_few_trials_foresee_nothing() -> None:
    assert expected_gain(made_up(1.0, n_trials=12), 12.0, 0) is None


def test_units_that_appear_later_are_taken_in(base: DecoderBundle) -> None:
    session = session_of()
    spikes = session.spikes
    silent = (spikes.unit == 12) & (spikes.t_us < 15_000_000)
    kept = replace(
        spikes, t_us=spikes.t_us[~silent], unit=spikes.unit[~silent], count=spikes.count[~silent]
    )
    late = replace(session, spikes=kept)
    assert len(until(late, 14.0, {}).unit_keys) == 12
    sequence = sequence_of(base, late)
    assert not sequence.refused
    kept_traces = second_half(traces_of(sequence))
    assert np.mean(r2_score(kept_traces.decodes["today"], kept_traces.actual)) > 0.5


@pytest.mark.long
def test_memory_grows_with_the_data_and_not_with_their_square() -> None:
    base = open_bundle(bundle_path("shipped:demo"))
    session = record_open_loop(1, 25, 4.0, 96, "centre-out")
    options = replace(OPTIONS, same_array=True)
    peaks = []
    for end_s in (60.0, 240.0):
        sequence = PredictThenLearn(base, options, Schedule(20.0, 20.0))
        part = until(session, end_s, base.row_of_key)
        tracemalloc.start()
        sequence.update(part, is_over=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4.5 * peaks[0]
