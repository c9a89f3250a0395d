"""Sampler: consecutive windows, fresh memory only after a reset, the same draws for any process."""

from __future__ import annotations

import torch

from decoders.streaming.stateful_sampler import Corpus, Plan, Segment, StatefulSampler
from decoders.training.recordings import lead_grid_s, record
from tests.decoders.sessions import small_config, tuned_session

CONFIG = small_config(lead={"min_s": 0.0, "max_s": 0.04})
RECORDINGS = [
    record(tuned_session("one", seed=1), CONFIG),
    record(tuned_session("two", n_units=5, duration_s=25.0, seed=2), CONFIG),
]
N_BINS, N_CONTEXT = 30, 10


def new_sampler(reset: float, n_segments: int = 1, n_blind: int = 0) -> StatefulSampler:
    corpus = Corpus(RECORDINGS, lead_grid_s(CONFIG.lead))
    generator = torch.Generator().manual_seed(5)
    return StatefulSampler(corpus, 6, N_BINS, N_CONTEXT, reset, generator, n_segments, n_blind)


def test_without_resets_each_window_goes_on_where_the_last_ended() -> None:
    sampler = new_sampler(reset=0.0)
    sampler.next(slice(0, 6))
    for _ in range(20):
        session, start = sampler.session.clone(), sampler.start.clone()
        window = sampler.next(slice(0, 6))
        kept = ~window.fresh
        assert torch.equal(sampler.session[kept], session[kept])
        assert torch.equal(sampler.start[kept], start[kept] + N_BINS)
        ends = torch.tensor([r.train.last for r in RECORDINGS])
        assert torch.equal(window.fresh, start >= ends[session])


def test_tokens_and_targets_are_those_of_the_recording() -> None:
    sampler = new_sampler(reset=0.3)
    for _ in range(5):
        window = sampler.next(slice(0, 6))
        for i in range(6):
            recording = RECORDINGS[int(window.session[i])]
            start = int(sampler.start[i]) - N_BINS
            cut = recording.cuts[int(sampler.cut[i])]
            tokens = cut.tokens
            stop = min(start + N_BINS, len(tokens))
            part = slice(tokens.offsets[start], tokens.offsets[stop])
            mine = window.lane == i
            assert window.unit[mine].tolist() == tokens.unit[part].tolist()
            assert window.t_rel[mine].tolist() == tokens.t_rel[part].tolist()
            i_lead = sampler.corpus.leads_s.tolist().index(float(window.lead_s[i]))
            target = cut.targets[i_lead, start : min(stop, recording.train.last)]
            found = window.target[i, : len(target)]
            scored = torch.isfinite(found).all(dim=-1)
            assert torch.equal(found[scored], torch.from_numpy(target)[scored])


def test_nothing_of_the_test_part_and_nothing_right_after_a_reset_is_scored() -> None:
    sampler = new_sampler(reset=0.5)
    for _ in range(20):
        window = sampler.next(slice(0, 6))
        start = sampler.start - N_BINS
        last = torch.tensor([r.train.last for r in RECORDINGS])[window.session]
        beyond = start.unsqueeze(1) + torch.arange(N_BINS) >= last.unsqueeze(1)
        assert torch.isnan(window.target[beyond]).all()
        assert torch.isnan(window.target[window.fresh][:, :N_CONTEXT]).all()


def test_processes_share_the_lanes_of_one() -> None:
    together, first, second = (new_sampler(reset=0.3) for _ in range(3))
    for _ in range(6):
        whole = together.next(slice(0, 6))
        parts = [first.next(slice(0, 3)), second.next(slice(3, 6))]
        target = torch.cat([part.target for part in parts])
        assert torch.equal(torch.nan_to_num(whole.target), torch.nan_to_num(target))
        assert torch.equal(whole.unit, torch.cat([part.unit for part in parts]))
        assert torch.equal(whole.lead_s, torch.cat([part.lead_s for part in parts]))


def test_a_window_of_pieces_is_their_windows_end_to_end() -> None:
    corpus = new_sampler(reset=0.0).corpus
    last = RECORDINGS[0].train.last
    joined = corpus.window([Plan(0, 1, 2, last, (Segment(0, 400, 12), Segment(12, 100, 18)))], 30)
    first = corpus.window([Plan(0, 1, 2, last, (Segment(0, 400, 12),))], 12)
    second = corpus.window([Plan(0, 1, 2, last, (Segment(0, 100, 18),))], 18)
    assert joined.unit.tolist() == first.unit.tolist() + second.unit.tolist()
    assert joined.bin.tolist() == first.bin.tolist() + (second.bin + 12).tolist()
    assert torch.equal(joined.target, torch.cat([first.target, second.target], dim=1))


def test_after_a_joint_nothing_is_scored_for_a_while() -> None:
    for n_blind, expected in ((0, 0), (4, 4)):
        sampler = new_sampler(reset=0.0, n_segments=2, n_blind=n_blind)
        n_missing = []
        for _ in range(30):
            known = torch.isfinite(sampler.next(slice(0, 6)).target).all(dim=-1)
            n_missing += [N_BINS - int(n) for n in known.sum(dim=1)]
        assert min(n_missing) <= expected
        assert max(set(n_missing), key=n_missing.count) == expected


def test_every_cut_is_read() -> None:
    sampler = new_sampler(reset=1.0)
    seen = set()
    for _ in range(20):
        sampler.next(slice(0, 6))
        seen |= set(sampler.cut.tolist())
    assert seen == set(range(CONFIG.training.cuts))
