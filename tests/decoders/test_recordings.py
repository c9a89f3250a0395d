"""Sessions become bins and targets: aligned, masked, refused when there is nothing to learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from decoders.errors import TrainingError
from decoders.training.recordings import lead_grid_s, longest_silence_s, record
from decoders.training.split import Part, split_bins
from streams.errors import SessionError
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior
from tests.decoders.sessions import VELOCITY, small_config, tuned_session

CONFIG = small_config()


def test_targets_are_the_behaviour_at_the_end_of_the_bin_plus_lead() -> None:
    session = tuned_session()
    recording = record(session, CONFIG)
    leads_s = lead_grid_s(CONFIG.lead)
    assert leads_s == [-0.04, -0.02, 0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
    for lead_s in (-0.04, 0.0, 0.1):
        for i_bin in (7, 500):
            t_s = (i_bin + 1) * 0.02 + lead_s
            expected = (10.0 * np.sin(2.0 * t_s), 10.0 * np.cos(1.3 * t_s))
            found = recording.targets[leads_s.index(lead_s), i_bin]
            np.testing.assert_allclose(found[:2], expected, atol=0.02)
            assert found[2] == float(expected[0] > 0)


def test_a_lag_moves_the_target() -> None:
    outputs: list[dict[str, object]] = [{"name": "velocity", "behavior": "velocity", "lag_s": 0.1}]
    present = small_config(outputs=[outputs[0] | {"lag_s": 0.0}])
    shifted = record(tuned_session(), small_config(outputs=outputs)).targets[2]
    straight = record(tuned_session(), present).targets[2]
    np.testing.assert_allclose(shifted[:500], straight[5:505], atol=1e-5)


def test_gaps_of_behaviour_are_masked_never_bridged() -> None:
    session = tuned_session()
    signal = session.behavior[VELOCITY]
    kept = (signal.t_s < 10.0) | (signal.t_s > 12.0)
    gappy = Behavior(signal.t_s[kept], signal.values[kept], signal.unit)
    session = replace(session, behavior={**session.behavior, VELOCITY: gappy})
    known = np.isfinite(record(session, CONFIG).targets[2, :, 0])
    ends_s = np.arange(1, len(known) + 1) * 0.02
    assert not known[(ends_s > 10.0) & (ends_s < 12.0)].any()
    assert known[ends_s < 9.9].all()


def test_nans_of_behaviour_are_masked() -> None:
    session = tuned_session()
    signal = session.behavior[VELOCITY]
    values = signal.values.copy()
    values[1000:1200] = np.nan
    holed = Behavior(signal.t_s, values, signal.unit)
    session = replace(session, behavior={**session.behavior, VELOCITY: holed})
    known = np.isfinite(record(session, CONFIG).targets[2]).all(axis=1)
    assert 90 <= np.count_nonzero(~known) <= 110


def test_split_is_chronological() -> None:
    assert split_bins(100, "last:0.2") == (Part(0, 80), Part(80, 100))
    assert split_bins(100, "none") == (Part(0, 100), Part(100, 100))


def test_longest_silence_is_of_all_units_together() -> None:
    spikes = SpikeBatch(
        np.array([0, 100_000, 900_000, 2_500_000], np.int64),
        np.array([0, 1, 0, 1], np.int32),
        np.ones(4, np.int32),
    )
    assert longest_silence_s(spikes, 1_000_000) == pytest.approx(0.8)
    assert longest_silence_s(spikes, 9_000_000) == pytest.approx(1.6)


def test_a_missing_behaviour_names_those_that_are_there() -> None:
    config = small_config(outputs=[{"name": "force", "behavior": "force"}])
    with pytest.raises(SessionError, match=r"no behaviour .*'force'.*velocity"):
        record(tuned_session(), config)


def test_no_spikes_and_no_usable_behaviour_are_refused() -> None:
    session = tuned_session()
    none = SpikeBatch(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))
    with pytest.raises(TrainingError, match="holds 0 spikes"):
        record(replace(session, spikes=none), CONFIG)
    signal = session.behavior[VELOCITY]
    elsewhere = Behavior(signal.t_s + 1e6, signal.values, signal.unit)
    with pytest.raises(TrainingError, match="is it in seconds of this session"):
        record(replace(session, behavior={**session.behavior, VELOCITY: elsewhere}), CONFIG)


def test_other_cuts_begin_within_the_hop_and_learn_the_same_behaviour() -> None:
    still = {"cuts": 4, "jitter_ms": 0.0}
    recording = record(tuned_session(), small_config(training=still))
    assert len(recording.cuts) == 4
    times_s = [
        np.repeat(np.arange(len(cut.tokens)) * 0.02 + i * 0.005, np.diff(cut.tokens.offsets))
        + cut.tokens.t_rel
        for i, cut in enumerate(recording.cuts)
    ]
    for of_cut in times_s[1:]:
        inside = (of_cut > 1.0) & (of_cut < 30.0)
        plain = (times_s[0] > 1.0) & (times_s[0] < 30.0)
        np.testing.assert_allclose(of_cut[inside], times_s[0][plain], atol=1e-5)
    halfway = (recording.targets[2, 99, :2] + recording.targets[2, 100, :2]) / 2
    np.testing.assert_allclose(recording.cuts[2].targets[2, 99, :2], halfway, atol=0.02)


def test_jitter_moves_spikes_of_the_other_cuts_alone() -> None:
    still, moved = (
        record(tuned_session(), small_config(training={"cuts": 2, "jitter_ms": ms}))
        for ms in (0.0, 2.0)
    )
    np.testing.assert_array_equal(still.tokens.t_rel, moved.tokens.t_rel)
    assert not np.array_equal(still.cuts[1].tokens.offsets, moved.cuts[1].tokens.offsets)


def test_sources_of_counts_have_one_cut() -> None:
    assert len(record(tuned_session(), small_config(beat={"rotary": False})).cuts) == 1


def test_no_train_bin_looks_into_the_test_part() -> None:
    recording = record(tuned_session(), CONFIG)
    edge_s = recording.train.last * 0.02
    for i_cut, cut in enumerate(recording.cuts):
        ends_s = (np.arange(len(cut.tokens)) + 1) * 0.02 + i_cut * 0.005
        for lead_s, target in zip(lead_grid_s(CONFIG.lead), cut.targets, strict=True):
            ahead = (ends_s <= edge_s + 1e-9) & (ends_s + lead_s > edge_s + 1e-9)
            assert np.isnan(target[ahead]).all()
    assert np.isfinite(recording.targets[2, recording.train.last - 1]).all()


def test_bins_may_overlap() -> None:
    narrow = record(tuned_session(), small_config())
    wide = record(tuned_session(), small_config(beat={"hop_ms": 20, "bin_ms": 60}))
    assert wide.n_bins == narrow.n_bins
    n_narrow, n_wide = (np.diff(r.tokens.offsets) for r in (narrow, wide))
    np.testing.assert_array_equal(n_wide[2:], n_narrow[:-2] + n_narrow[1:-1] + n_narrow[2:])
    np.testing.assert_array_equal(wide.targets, narrow.targets)
