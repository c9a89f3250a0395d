"""Windows for training: lanes walk through recordings side by side, memory carries over windows.

One generator makes every draw, for the lanes of all processes. So the course of a training does not
depend on how many processes share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decoders.streaming.decoder import LaneTokens
from decoders.training.recordings import Cut, Recording
from decoders.training.split import Part


@dataclass(slots=True)
class Window:
    """One stretch of time on several lanes; not frozen, because mixed precision rebuilds it.

    Attributes:
        session: (B,) int64, recording index.
        row: (B, U) int64, each unit's row; padded with 0.
        present: (B, U), 1, or 0 where padded.
        lane: (N,) int64, each token's lane.
        bin: (N,) int64, each token's bin within the window.
        unit: (N,) int64, each token's unit within its session.
        t_rel: (N,) float32.
        count: (N,) float32.
        target: (B, T, n_columns) float32, NaN where nothing is scored.
        lead_s: (B,) float32.
        fresh: (B,) bool, whether memory is reset before the window.
    """

    session: Tensor
    row: Tensor
    present: Tensor
    lane: Tensor
    bin: Tensor
    unit: Tensor
    t_rel: Tensor
    count: Tensor
    target: Tensor
    lead_s: Tensor
    fresh: Tensor

    @property
    def n_bins(self) -> int:
        """Bins per lane."""
        return self.target.shape[1]

    def tokens(self, count: Tensor) -> LaneTokens:
        """Tokens for the encoder, with other counts."""
        shape = (len(self.session), self.n_bins)
        return LaneTokens(self.lane, self.bin, self.unit, self.t_rel, count, shape)

    def to(self, device: torch.device) -> Window:
        """Copy to a device."""
        return Window(*(getattr(self, name).to(device) for name in self.__slots__))


class Segment(NamedTuple):
    """A recorded stretch inside a window.

    Attributes:
        at: first bin in the window.
        start: first bin in the recording.
        n_bins: length.
    """

    at: int
    start: int
    n_bins: int


class Plan(NamedTuple):
    """One lane's plan for one window.

    Attributes:
        session: recording index.
        cut: cut index.
        i_lead: lead index.
        last: first bin in the recording that is not scored any more.
        segments: in the window, in order.
    """

    session: int
    cut: int
    i_lead: int
    last: int
    segments: tuple[Segment, ...]


class Corpus:
    """All recordings as tensors, one row per unit and session.

    Args:
        recordings: in order.
        leads_s: leads in the recordings' targets.
    """

    def __init__(self, recordings: Sequence[Recording], leads_s: Sequence[float]) -> None:
        self.recordings = list(recordings)
        self.leads_s = torch.tensor(leads_s, dtype=torch.float32)
        self.i_present = leads_s.index(0.0)
        self.first_row = np.cumsum([0, *(len(r.unit_keys) for r in recordings)])

    @property
    def n_rows(self) -> int:
        """Units in all sessions."""
        return int(self.first_row[-1])

    def window(self, plans: Sequence[Plan], n_bins: int) -> Window:
        """Cut `n_bins` bins for each plan."""
        tokens = [self._tokens(plan) for plan in plans]
        n_tokens = torch.tensor([len(columns[0]) for columns in tokens])
        joined = [torch.from_numpy(np.concatenate(column)) for column in zip(*tokens, strict=True)]
        row, present = self._rows([plan.session for plan in plans])
        return Window(
            session=torch.tensor([plan.session for plan in plans]),
            row=row,
            present=present,
            lane=torch.repeat_interleave(torch.arange(len(plans)), n_tokens),
            bin=joined[0],
            unit=joined[1],
            t_rel=joined[2],
            count=joined[3],
            target=torch.from_numpy(np.stack([self._target(plan, n_bins) for plan in plans])),
            lead_s=self.leads_s[[plan.i_lead for plan in plans]],
            fresh=torch.zeros(len(plans), dtype=torch.bool),
        )

    def _rows(self, sessions: Sequence[int]) -> tuple[Tensor, Tensor]:
        n_units = [len(self.recordings[s].unit_keys) for s in sessions]
        rows = np.zeros((len(n_units), max(n_units)), np.int64)
        for i, (s, n) in enumerate(zip(sessions, n_units, strict=True)):
            rows[i, :n] = np.arange(self.first_row[s], self.first_row[s] + n)
        present = np.arange(rows.shape[1]) < np.array(n_units)[:, None]
        return torch.from_numpy(rows), torch.from_numpy(present.astype(np.float32))

    def _cut(self, plan: Plan) -> Cut:
        return self.recordings[plan.session].cuts[plan.cut]

    def _tokens(self, plan: Plan) -> list[np.ndarray]:
        tokens = self._cut(plan).tokens
        columns = []
        for at, start, n_bins in plan.segments:
            stop = max(start, min(start + n_bins, len(tokens)))
            offsets = tokens.offsets[start : stop + 1]
            part = slice(offsets[0], offsets[-1])
            bins = at + np.repeat(np.arange(stop - start), np.diff(offsets))
            unit = tokens.unit[part].astype(np.int64)
            columns.append((bins, unit, tokens.t_rel[part], tokens.count[part]))
        return [np.concatenate(column) for column in zip(*columns, strict=True)]

    def _target(self, plan: Plan, n_bins: int) -> np.ndarray:
        targets = self._cut(plan).targets[plan.i_lead]
        out = np.full((n_bins, targets.shape[1]), np.nan, np.float32)
        for at, start, n in plan.segments:
            known = targets[start : max(start, min(start + n, plan.last))]
            out[at : at + len(known)] = known
        return out


class StatefulSampler:
    """Walks lanes through the recordings, one window after the other.

    Args:
        corpus: the recordings.
        n_lanes: in all processes together.
        n_bins: window length.
        n_context: bins after a reset that are not scored.
        reset: chance per window that a lane starts elsewhere, with fresh memory.
        generator: makes every draw.
        n_segments: per window, from anywhere in the recording, memory carried over the joints.
            A network that learns how reaches of the training task go on decodes that instead of
            the intention (Deo et al. 2024 alter the course of time to the same end).
        n_blind: bins after a joint that are not scored, because their spikes are gone.
    """

    def __init__(
        self,
        corpus: Corpus,
        n_lanes: int,
        n_bins: int,
        n_context: int,
        reset: float,
        generator: torch.Generator,
        n_segments: int = 1,
        n_blind: int = 0,
    ) -> None:
        self.corpus = corpus
        self.n_segments = n_segments
        self.n_blind = n_blind
        self.n_bins = n_bins
        self.n_context = n_context
        self.reset = reset
        self.generator = generator
        self.parts: list[Part] = [recording.train for recording in corpus.recordings]
        self.last = torch.tensor([part.last for part in self.parts])
        lengths = [part.last - part.first for part in self.parts]
        self.odds = torch.tensor(lengths, dtype=torch.float64)
        self.n_cuts = torch.tensor([len(r.cuts) for r in corpus.recordings])
        self.session = torch.zeros(n_lanes, dtype=torch.int64)
        self.cut = torch.zeros(n_lanes, dtype=torch.int64)
        self.start = torch.full((n_lanes,), torch.iinfo(torch.int64).max // 2)
        self.n_since_reset = torch.zeros(n_lanes, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.session)

    def next(self, mine: slice) -> Window:
        """Move every lane by one window, and cut this process's lanes."""
        # Drawn for all lanes, also those of other processes: see the top of the file.
        drawn = torch.rand(len(self), generator=self.generator) < self.reset
        fresh = drawn | (self.start >= self.last[self.session])
        self._redraw(fresh)
        plans = self._plans()
        window = self.corpus.window(plans[mine], self.n_bins)
        window.fresh.copy_(fresh[mine])
        for target, plan in zip(window.target, plans[mine], strict=True):
            for segment in plan.segments[1:]:
                target[segment.at : segment.at + self.n_blind] = torch.nan
        age = self.n_since_reset[mine, None] + torch.arange(self.n_bins)
        window.target[age < self.n_context] = torch.nan
        self.start = torch.tensor([p.segments[-1].start + p.segments[-1].n_bins for p in plans])
        self.n_since_reset = self.n_since_reset + self.n_bins
        return window

    def _plans(self) -> list[Plan]:
        """Plan each lane's next window; its first segment goes on where the lane stands."""
        i_lead = self._draw_leads()
        shape = (len(self), self.n_segments - 1)
        joints = torch.randint(1, max(2, self.n_bins), shape, generator=self.generator)
        shares = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        columns = (self.session, self.cut, i_lead, self.last[self.session], self.start)
        lanes = zip(*(column.tolist() for column in columns), strict=True)
        return [
            Plan(session, cut, lead, last, self._segments(session, start, joints[i], shares[i]))
            for i, (session, cut, lead, last, start) in enumerate(lanes)
        ]

    def _segments(
        self, session: int, start: int, joints: Tensor, shares: Tensor
    ) -> tuple[Segment, ...]:
        edges = [0, *sorted(set(joints.tolist())), self.n_bins]
        part = self.parts[session]
        room = max(1.0, part.last - part.first - self.n_bins / 2)
        starts = [start, *(part.first + int(share * room) for share in shares.tolist())]
        return tuple(
            Segment(edge, starts[j], edges[j + 1] - edge) for j, edge in enumerate(edges[:-1])
        )

    def _redraw(self, fresh: Tensor) -> None:
        n = len(self)
        session = torch.multinomial(self.odds, n, replacement=True, generator=self.generator)
        share = torch.rand(n, generator=self.generator, dtype=torch.float64)
        any_cut = torch.rand(n, generator=self.generator) * self.n_cuts[session]
        first = torch.tensor([part.first for part in self.parts])[session]
        # At least half of the window lies inside the train part.
        room = (self.odds[session] - self.n_bins / 2).clamp(min=1.0)
        self.session = torch.where(fresh, session, self.session)
        self.cut = torch.where(fresh, any_cut.long(), self.cut)
        self.start = torch.where(fresh, first + (share * room).long(), self.start)
        self.n_since_reset = torch.where(fresh, 0, self.n_since_reset)

    def _draw_leads(self) -> Tensor:
        """Draw a lead for each lane: the present for half of them, any lead for the others."""
        n_leads = len(self.corpus.leads_s)
        any_lead = torch.randint(n_leads, (len(self),), generator=self.generator)
        present = torch.rand(len(self), generator=self.generator) < 0.5
        return torch.where(present, self.corpus.i_present, any_lead)

    def progress(self) -> dict[str, Any]:
        """Give the state that a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("session", "cut", "start", "n_since_reset")}

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        for name, column in progress.items():
            setattr(self, name, column)
