"""Lanes: readers that walk through recordings side by side, so that memory carries over windows.

Every draw comes from one generator and is made for all lanes, whichever process runs them: the
course of a training does not depend on how many processes share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decoders.recordings import Part, Recording


@dataclass(frozen=True, slots=True)
class Window:
    """The same stretch of time on several lanes.

    Attributes:
        session: (B,) int64, which recording.
        row: (B, U) int64, row of each of the session's units; padded with 0.
        lane: (N,) int64, lane of each token.
        bin: (N,) int64, bin of each token within the window.
        unit: (N,) int64, unit of each token within its session.
        t_rel: (N,) float32.
        count: (N,) float32.
        target: (B, T, n_columns) float32, NaN where nothing is scored.
        lead_s: (B,) float32.
        fresh: (B,) bool, memory is to be reset before the window.
    """

    session: Tensor
    row: Tensor
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

    def to(self, device: torch.device) -> Window:
        """The same on a device."""
        return Window(*(getattr(self, name).to(device) for name in self.__slots__))


class Corpus:
    """All recordings as tensors, with one row per unit of each session.

    Args:
        recordings: in order.
        leads_s: leads of the recordings' targets.
    """

    def __init__(self, recordings: Sequence[Recording], leads_s: Sequence[float]) -> None:
        self.recordings = list(recordings)
        self.leads_s = torch.tensor(leads_s, dtype=torch.float32)
        self.i_present = leads_s.index(0.0)
        self.first_row = np.cumsum([0, *(len(r.unit_keys) for r in recordings)])

    @property
    def n_rows(self) -> int:
        """Units of all sessions together."""
        return int(self.first_row[-1])

    def window(
        self, session: Tensor, start: Tensor, last: Tensor, n_bins: int, i_lead: Tensor
    ) -> Window:
        """Cut bins `start .. start + n_bins` of each lane; from `last` on nothing is scored."""
        cuts = [
            self._tokens(int(s), int(b), n_bins)
            for s, b in zip(session.tolist(), start.tolist(), strict=True)
        ]
        n_tokens = [len(cut[0]) for cut in cuts]
        joined = [torch.from_numpy(np.concatenate(column)) for column in zip(*cuts, strict=True)]
        lane = torch.repeat_interleave(torch.arange(len(cuts)), torch.tensor(n_tokens))
        targets = [
            self._target(*lane_spec, n_bins)
            for lane_spec in zip(
                session.tolist(), start.tolist(), last.tolist(), i_lead.tolist(), strict=True
            )
        ]
        return Window(
            session=session,
            row=self._rows(session),
            lane=lane,
            bin=joined[0],
            unit=joined[1],
            t_rel=joined[2],
            count=joined[3],
            target=torch.from_numpy(np.stack(targets)),
            lead_s=self.leads_s[i_lead],
            fresh=torch.zeros(len(session), dtype=torch.bool),
        )

    def _rows(self, session: Tensor) -> Tensor:
        n_units = [len(self.recordings[s].unit_keys) for s in session.tolist()]
        rows = np.zeros((len(n_units), max(n_units)), np.int64)
        for i, (s, n) in enumerate(zip(session.tolist(), n_units, strict=True)):
            rows[i, :n] = np.arange(self.first_row[s], self.first_row[s] + n)
        return torch.from_numpy(rows)

    def _tokens(self, i_session: int, start: int, n_bins: int) -> tuple[np.ndarray, ...]:
        tokens = self.recordings[i_session].tokens
        stop = min(start + n_bins, len(tokens))
        offsets = tokens.offsets[start : stop + 1]
        part = slice(offsets[0], offsets[-1])
        bins = np.repeat(np.arange(stop - start), np.diff(offsets))
        return bins, tokens.unit[part].astype(np.int64), tokens.t_rel[part], tokens.count[part]

    def _target(
        self, i_session: int, start: int, last: int, i_lead: int, n_bins: int
    ) -> np.ndarray:
        targets = self.recordings[i_session].targets[i_lead]
        out = np.full((n_bins, targets.shape[1]), np.nan, np.float32)
        known = targets[start : min(start + n_bins, last)]
        out[: len(known)] = known
        return out


class Lanes:
    """Where each lane stands.

    Args:
        corpus: the recordings.
        n_lanes: over all processes together.
        n_bins: length of a window.
        n_context: bins after a reset that are not scored.
        reset: chance per window that a lane starts elsewhere, with fresh memory.
        generator: of every draw.
    """

    def __init__(
        self,
        corpus: Corpus,
        n_lanes: int,
        n_bins: int,
        n_context: int,
        reset: float,
        generator: torch.Generator,
    ) -> None:
        self.corpus = corpus
        self.n_bins = n_bins
        self.n_context = n_context
        self.reset = reset
        self.generator = generator
        self.parts: list[Part] = [recording.train for recording in corpus.recordings]
        lengths = [part.last - part.first for part in self.parts]
        self.odds = torch.tensor(lengths, dtype=torch.float64)
        self.session = torch.zeros(n_lanes, dtype=torch.int64)
        self.start = torch.full((n_lanes,), torch.iinfo(torch.int64).max // 2)
        self.n_since_reset = torch.zeros(n_lanes, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.session)

    def next(self, mine: slice) -> Window:
        """Move every lane on by one window, and cut those of this process."""
        last = torch.tensor([part.last for part in self.parts])
        drawn = torch.rand(len(self), generator=self.generator) < self.reset
        fresh = drawn | (self.start >= last[self.session])
        self._redraw(fresh)
        i_lead = self._draw_leads()
        window = self.corpus.window(
            self.session[mine],
            self.start[mine],
            last[self.session][mine],
            self.n_bins,
            i_lead[mine],
        )
        window.fresh.copy_(fresh[mine])
        age = self.n_since_reset[mine, None] + torch.arange(self.n_bins)
        window.target[age < self.n_context] = torch.nan
        self.start = self.start + self.n_bins
        self.n_since_reset = self.n_since_reset + self.n_bins
        return window

    def _redraw(self, fresh: Tensor) -> None:
        n = len(self)
        session = torch.multinomial(self.odds, n, replacement=True, generator=self.generator)
        share = torch.rand(n, generator=self.generator, dtype=torch.float64)
        first = torch.tensor([part.first for part in self.parts])[session]
        room = (self.odds[session] - self.n_bins / 2).clamp(min=1.0)
        self.session = torch.where(fresh, session, self.session)
        self.start = torch.where(fresh, first + (share * room).long(), self.start)
        self.n_since_reset = torch.where(fresh, 0, self.n_since_reset)

    def _draw_leads(self) -> Tensor:
        """Half the lanes learn the present, the others any lead of the range."""
        n_leads = len(self.corpus.leads_s)
        any_lead = torch.randint(n_leads, (len(self),), generator=self.generator)
        present = torch.rand(len(self), generator=self.generator) < 0.5
        return torch.where(present, self.corpus.i_present, any_lead)

    def progress(self) -> dict[str, Any]:
        """What a checkpoint needs to go on from here."""
        return {"session": self.session, "start": self.start, "n_since_reset": self.n_since_reset}

    def restore(self, progress: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.session = progress["session"]
        self.start = progress["start"]
        self.n_since_reset = progress["n_since_reset"]
