"""Whole windows to learn from, put together from a recording's bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from decoders.poyo.tokens import MICROSECOND_S, Int64s, PoyoBatch, PoyoWindow, batch_of
from decoders.training.recordings import Cut, Recording
from decoders.training.split import Part
from streams.messages import Float32s


@dataclass(frozen=True, slots=True)
class Stretch:
    """A window's place.

    Attributes:
        session: recording index.
        cut: cut index.
        last: its last bin.
    """

    session: int
    cut: int
    last: int


class WindowCorpus:
    """Windows in several recordings, with one vocabulary row per unit and session.

    Args:
        recordings: in order; their bins do not overlap.
        hop_us: bin length, microseconds.
        n_hops: bins in a window.
    """

    def __init__(self, recordings: Sequence[Recording], hop_us: int, n_hops: int) -> None:
        self.recordings = list(recordings)
        self.n_hops, self.hop_us = n_hops, hop_us
        self.first_row = np.cumsum([1, *(len(r.unit_keys) for r in recordings)])
        self._t_us = [[_since_start_us(cut, hop_us) for cut in r.cuts] for r in recordings]
        lengths = [len(self.ends(r.train)) for r in recordings]
        self._odds = torch.tensor(lengths, dtype=torch.float64)

    @property
    def sequence_s(self) -> float:
        """Window length, seconds."""
        return self.n_hops * self.hop_us * MICROSECOND_S

    @property
    def train_s(self) -> float:
        """Of all train parts together, where windows may end."""
        return float(self._odds.sum()) * self.hop_us * MICROSECOND_S

    def ends(self, part: Part) -> range:
        """Last bins for windows that end in a recording's part."""
        return range(max(part.first, self.n_hops - 1), part.last)

    def words(self) -> tuple[list[str], list[str]]:
        """Vocabularies for units and sessions, ordered by row."""
        units = [f"{r.id}/{key}" for r in self.recordings for key in r.unit_keys]
        return units, [r.id for r in self.recordings]

    def draw(self, n: int, generator: torch.Generator) -> list[Stretch]:
        """Draw windows from the train parts, each as likely as any."""
        sessions = torch.multinomial(self._odds, n, replacement=True, generator=generator)
        shares = torch.rand(2, n, generator=generator, dtype=torch.float64).tolist()
        return [self._one(*drawn) for drawn in zip(sessions.tolist(), *shares, strict=True)]

    def _one(self, session: int, share: float, cut_share: float) -> Stretch:
        recording = self.recordings[session]
        cut = int(cut_share * len(recording.cuts))
        ends = self.ends(recording.train)
        # The bins of a further cut end later than those of the first: its last would see the test.
        n_ends = max(1, len(ends) - (1 if cut else 0))
        return Stretch(session, cut, ends[int(share * n_ends)])

    def batch(self, stretches: Sequence[Stretch], kept: Sequence[np.ndarray]) -> PoyoBatch:
        """The windows' tokens, queried at each hop's end.

        Args:
            stretches: B stretches.
            kept: for each, (U,) bool, its session's units that are kept.
        """
        windows = [self._window(at, mask) for at, mask in zip(stretches, kept, strict=True)]
        query_s = np.arange(1, self.n_hops + 1) * self.hop_us * MICROSECOND_S
        queries = np.broadcast_to(query_s, (len(windows), self.n_hops)).copy()
        return batch_of(windows, queries, self.sequence_s)

    def _window(self, at: Stretch, kept: np.ndarray) -> PoyoWindow:
        tokens = self.recordings[at.session].cuts[at.cut].tokens
        first = at.last + 1 - self.n_hops
        held = slice(int(tokens.offsets[first]), int(tokens.offsets[at.last + 1]))
        unit = tokens.unit[held]
        there = kept[unit]
        t_us = self._t_us[at.session][at.cut][held][there] - first * self.hop_us
        return PoyoWindow(
            units=self.first_row[at.session] + np.flatnonzero(kept),
            unit=(np.cumsum(kept) - 1)[unit[there]],
            t_s=t_us * MICROSECOND_S,
            count=tokens.count[held][there].astype(np.float64),
            session=1 + at.session,
        )

    def targets(self, stretches: Sequence[Stretch]) -> Float32s:
        """(B, n_hops, n_columns), NaN where nothing is scored."""
        targets = [self.recordings[at.session].cuts[at.cut].targets[0] for at in stretches]
        windows = zip(targets, stretches, strict=True)
        return np.stack([t[at.last + 1 - self.n_hops : at.last + 1] for t, at in windows])


def _since_start_us(cut: Cut, hop_us: int) -> Int64s:
    """Each token's microseconds since the first bin's start."""
    i_bin = np.repeat(np.arange(len(cut.tokens)), np.diff(cut.tokens.offsets))
    within_us = np.round(cut.tokens.t_rel.astype(np.float64) / MICROSECOND_S).astype(np.int64)
    since_start_us: Int64s = i_bin * hop_us + within_us
    return since_start_us
