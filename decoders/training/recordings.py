"""A session as training sees it: tokens per bin, targets per bin and lead, train and test parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from decoders.config import Lead, OutputChoice, TrainConfig
from decoders.errors import TrainingError
from decoders.training.split import ALWAYS_US, Part, Parts, split_session
from decoders.training.synthetic_sessions import synthetic_sessions
from streams.messages import Float32s, Float64s, Int64s, SpikeBatch
from streams.sessions.session import Behavior, Session
from streams.spikes.layouts.stamp_grain import are_blocks
from streams.spikes.tokenizer import TokenBins, cut_bins

LEAD_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class Cut:
    """A session's bins with their targets.

    Attributes:
        tokens: bin i ends at phase + (i + 1) * hop.
        targets: (n_leads, n_bins, n_columns) float32, physical units, NaN where unknown or where
            a train bin would look into the test part; a discrete output takes one column, its
            class number.
    """

    tokens: TokenBins
    targets: Float32s


@dataclass(frozen=True, slots=True)
class Recording:
    """One session, cut.

    Attributes:
        id: the session's.
        unit_keys: each unit's key; tokens index this.
        cuts: the first is the session as it is decoded. The others are for training only: their
            bins begin elsewhere within a hop, and spike times are jittered.
        dims: each output's vector length; for a discrete output, its classes.
        train: bins that may be learnt from; other bins inside it have NaN targets.
        test: held out; with a split by trials, from the first held-out trial to the last.
        tested: (n_bins,) bool, bins that are held out.
        test_targets: (n_bins, n_columns) float32 at lead 0, NaN where nothing is held out.
        longest_silence_s: over all units together in the train part.
        synthetic: whether its units do not exist; used for training only.
    """

    id: str
    unit_keys: tuple[str, ...]
    cuts: tuple[Cut, ...]
    dims: tuple[int, ...]
    train: Part
    test: Part
    tested: np.ndarray
    test_targets: Float32s
    longest_silence_s: float
    synthetic: bool = False

    @property
    def tokens(self) -> TokenBins:
        """Tokens in the cut that is decoded."""
        return self.cuts[0].tokens

    @property
    def targets(self) -> Float32s:
        """Targets in the cut that is decoded."""
        return self.cuts[0].targets

    @property
    def spikes_per_bin(self) -> Float64s:
        """(U,) each unit's mean in the train part."""
        part = slice(*(int(self.tokens.offsets[i]) for i in (self.train.first, self.train.last)))
        unit, count = self.tokens.unit[part], self.tokens.count[part]
        n_spikes = np.bincount(unit, weights=count, minlength=len(self.unit_keys))
        mean: Float64s = n_spikes / max(1, self.train.last - self.train.first)
        return mean

    @property
    def n_bins(self) -> int:
        """Bins in the whole recording."""
        return len(self.tokens)


def lead_grid_s(lead: Lead) -> list[float]:
    """Leads for which targets are prepared; holds 0."""
    first = math.ceil(lead.min_s / LEAD_STEP_S - 1e-9)
    last = math.floor(lead.max_s / LEAD_STEP_S + 1e-9)
    return [round(i * LEAD_STEP_S, 9) for i in range(first, last + 1)]


def record(session: Session, config: TrainConfig) -> Recording:
    """Cut a session into bins with their targets.

    Raises:
        TrainingError: no spikes, too short for one bin, or a behaviour without usable samples.
        streams.errors.SessionError: the session lacks a named behaviour.
    """
    hop_us = round(config.beat.hop_ms * 1000)
    ends_us = np.arange(1, int(session.duration_s * 1e6) // hop_us + 1, dtype=np.int64) * hop_us
    if not len(session.spikes) or not len(ends_us):
        raise TrainingError(
            f"session {session.id} holds {len(session.spikes)} spikes in "
            f"{session.duration_s:.1f} s: nothing to train on; leave it out of [sessions] glob"
        )
    parts = split_session(session, ends_us, config.split)
    dims = [
        output.classes or session.signal(output.behavior).values.shape[1]
        for output in config.outputs
    ]
    n_cuts = config.training.cuts if config.beat.rotary else 1
    return Recording(
        id=session.id,
        unit_keys=session.unit_keys,
        cuts=tuple(_cut(session, ends_us, parts, config, i, n_cuts) for i in range(n_cuts)),
        dims=tuple(dims),
        train=parts.train,
        test=parts.test,
        tested=parts.tested,
        test_targets=_test_targets(session, ends_us, parts, config),
        longest_silence_s=longest_silence_s(session.spikes, parts.train.last * hop_us),
    )


def _test_targets(session: Session, ends_us: Int64s, parts: Parts, config: TrainConfig) -> Float32s:
    columns = [
        _read(session, output, ends_us, [0.0], config, ("both", "score"))[0]
        for output in config.outputs
    ]
    targets: Float32s = np.concatenate(columns, axis=1).astype(np.float32)
    targets[~parts.tested] = np.nan
    return targets


def record_synthetic(session: Session, config: TrainConfig, seed: int) -> list[Recording]:
    """Make and cut as many synthetic sessions as the config asks for; nothing in them is scored."""
    classes = tuple(output.behavior for output in config.outputs if output.classes)
    sessions = synthetic_sessions(
        session,
        config.training.made_up,
        hop_us=round(config.beat.hop_ms * 1000),
        as_they_are=[path for path in session.behavior if path.endswith(classes)],
        seed=seed,
    )
    recordings = (record(one, config) for one in sessions)
    return [
        replace(
            one,
            test=Part(one.n_bins, one.n_bins),
            tested=np.zeros(one.n_bins, np.bool_),
            synthetic=True,
        )
        for one in recordings
    ]


def _cut(
    session: Session, ends_us: Int64s, parts: Parts, config: TrainConfig, i_cut: int, n_cuts: int
) -> Cut:
    """Make cut `i_cut`; the first has no phase and no jitter."""
    spikes = session.spikes
    if i_cut:
        # The last bin of a shifted cut would end after the recording.
        ends_us = ends_us[:-1] + round(config.beat.hop_ms * 1000 * i_cut / n_cuts)
        rng = np.random.default_rng([config.seed, i_cut])
        moved = rng.normal(0.0, config.training.jitter_ms * 1000.0, len(spikes)).astype(np.int64)
        spikes = replace(spikes, t_us=spikes.t_us + moved)
    rows = np.arange(len(session.unit_keys), dtype=np.int32)
    targets = [_one_target(session, output, ends_us, parts, config) for output in config.outputs]
    return Cut(
        tokens=cut_bins(
            spikes,
            rows,
            ends_us,
            round(config.beat.bin_ms * 1000),
            drop_repeats=not are_blocks(session.spikes.t_us),
        ),
        targets=np.concatenate(targets, axis=2),
    )


def longest_silence_s(spikes: SpikeBatch, until_us: int) -> float:
    """Longest time without any spike before `until_us`, seconds."""
    t_us = np.sort(spikes.t_us[spikes.t_us <= until_us])
    return float(np.max(np.diff(t_us), initial=0)) * 1e-6


def _one_target(
    session: Session, output: OutputChoice, ends_us: Int64s, parts: Parts, config: TrainConfig
) -> Float32s:
    """(n_leads, n_bins, n_columns) targets, NaN where nothing may be learnt."""
    leads_s = lead_grid_s(config.lead)
    targets = _read(session, output, ends_us, leads_s, config, ("both", "train"))
    if not np.isfinite(targets).any():
        raise TrainingError(
            f"session {session.id}: behaviour {output.behavior!r} has no two samples closer than "
            f"{config.sessions.max_gap_s} s within the spikes' time (and the mask, if any); is it "
            "in seconds of this session?"
        )
    lag_us = round(output.lag_s * 1e6)
    # A target ahead of its bin must not come from the test part.
    ahead_us = ends_us + np.rint(np.array(leads_s)[:, None] * 1e6).astype(np.int64)
    forbidden = ~parts.may_learn(ahead_us)
    if parts.learnt_us[0, 0] == ALWAYS_US:
        forbidden &= ends_us <= parts.learnt_us[0, 1]
    else:
        forbidden |= ~parts.may_learn(ends_us) | ~parts.may_learn(ahead_us + lag_us)
    targets[forbidden] = np.nan
    return targets.astype(np.float32)


def _read(
    session: Session,
    output: OutputChoice,
    ends_us: Int64s,
    leads_s: Sequence[float],
    config: TrainConfig,
    mask_for: tuple[str, ...],
) -> Float64s:
    """(n_leads, n_bins, n_columns) behaviour; NaN where unknown or masked."""
    signal = session.signal(output.behavior)
    if config.sessions.mask_for not in mask_for:
        signal = replace(signal, masked_in=None)
    t_s: Float64s = np.asarray(ends_us * 1e-6 + output.lag_s, np.float64)
    read = _class_at if output.classes else Behavior.at
    gap_s = config.sessions.max_gap_s
    return np.stack([read(signal, np.add(t_s, lead_s), gap_s) for lead_s in leads_s])


def _class_at(signal: Behavior, t_s: Float64s, gap_s: float) -> np.ndarray:
    """Newest class number at each time; NaN before the first and across gaps."""
    newest = np.searchsorted(signal.t_s, t_s, side="right") - 1
    values = signal.values[np.maximum(newest, 0), :1].copy()
    if signal.masked_in is not None:
        values[~signal.masked_in[np.maximum(newest, 0)]] = np.nan
    values[(newest < 0) | (t_s - signal.t_s[np.maximum(newest, 0)] > gap_s)] = np.nan
    return values


def session_record(recording: Recording) -> dict[str, Any]:
    """Facts about a session that export needs, as plain JSON types."""
    train = recording.targets[:, recording.train.first : recording.train.last]
    known = train.reshape(-1, train.shape[-1])
    return {
        "id": recording.id,
        "made_up": recording.synthetic,
        "unit_keys": list(recording.unit_keys),
        "spikes_per_bin": recording.spikes_per_bin.tolist(),
        "longest_silence_s": recording.longest_silence_s,
        "low": np.nanquantile(known, 0.001, axis=0).tolist(),
        "high": np.nanquantile(known, 0.999, axis=0).tolist(),
        "tokens_p999": float(np.quantile(np.diff(recording.tokens.offsets), 0.999)),
    }
