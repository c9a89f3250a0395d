"""Lanes: consecutive windows, fresh memory only after a reset, the same draws for any process."""

from __future__ import annotations

import torch

from decoders.lanes import Corpus, Lanes
from decoders.recordings import lead_grid_s, record
from tests.decoders.sessions import small_config, tuned_session

CONFIG = small_config(lead={"min_s": 0.0, "max_s": 0.04})
RECORDINGS = [
    record(tuned_session("one", seed=1), CONFIG),
    record(tuned_session("two", n_units=5, duration_s=25.0, seed=2), CONFIG),
]
N_BINS, N_CONTEXT = 30, 10


def new_lanes(reset: float, n_lanes: int = 6, seed: int = 5) -> Lanes:
    corpus = Corpus(RECORDINGS, lead_grid_s(CONFIG.lead))
    generator = torch.Generator().manual_seed(seed)
    return Lanes(corpus, n_lanes, N_BINS, N_CONTEXT, reset, generator)


def test_without_resets_each_window_goes_on_where_the_last_ended() -> None:
    lanes = new_lanes(reset=0.0)
    lanes.next(slice(0, 6))
    for _ in range(20):
        session, start = lanes.session.clone(), lanes.start.clone()
        window = lanes.next(slice(0, 6))
        kept = ~window.fresh
        assert torch.equal(lanes.session[kept], session[kept])
        assert torch.equal(lanes.start[kept], start[kept] + N_BINS)
        ends = torch.tensor([r.train.last for r in RECORDINGS])
        assert torch.equal(window.fresh, start >= ends[session])


def test_tokens_and_targets_are_those_of_the_recording() -> None:
    lanes = new_lanes(reset=0.3)
    for _ in range(5):
        window = lanes.next(slice(0, 6))
        for i in range(6):
            recording = RECORDINGS[int(window.session[i])]
            start = int(lanes.start[i]) - N_BINS
            stop = min(start + N_BINS, recording.n_bins)
            part = slice(recording.tokens.offsets[start], recording.tokens.offsets[stop])
            mine = window.lane == i
            assert window.unit[mine].tolist() == recording.tokens.unit[part].tolist()
            assert window.t_rel[mine].tolist() == recording.tokens.t_rel[part].tolist()
            i_lead = lanes.corpus.leads_s.tolist().index(float(window.lead_s[i]))
            target = recording.targets[i_lead, start : min(stop, recording.train.last)]
            found = window.target[i, : len(target)]
            scored = torch.isfinite(found).all(dim=-1)
            assert torch.equal(found[scored], torch.from_numpy(target)[scored])


def test_nothing_of_the_test_part_and_nothing_right_after_a_reset_is_scored() -> None:
    lanes = new_lanes(reset=0.5)
    for _ in range(20):
        window = lanes.next(slice(0, 6))
        start = lanes.start - N_BINS
        last = torch.tensor([r.train.last for r in RECORDINGS])[window.session]
        beyond = start.unsqueeze(1) + torch.arange(N_BINS) >= last.unsqueeze(1)
        assert torch.isnan(window.target[beyond]).all()
        assert torch.isnan(window.target[window.fresh][:, :N_CONTEXT]).all()


def test_processes_share_the_lanes_of_one() -> None:
    together, first, second = (new_lanes(reset=0.3) for _ in range(3))
    for _ in range(6):
        whole = together.next(slice(0, 6))
        parts = [first.next(slice(0, 3)), second.next(slice(3, 6))]
        target = torch.cat([part.target for part in parts])
        assert torch.equal(torch.nan_to_num(whole.target), torch.nan_to_num(target))
        assert torch.equal(whole.unit, torch.cat([part.unit for part in parts]))
        assert torch.equal(whole.lead_s, torch.cat([part.lead_s for part in parts]))
