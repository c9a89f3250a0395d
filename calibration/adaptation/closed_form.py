"""Adaptation of the streaming decoder in closed form: no gradient, no torch.

Profiles come from tuning sums, tables from profiles by weights that the bundle holds. One pass of
the decoder over the labelled seconds decodes each trial by tables that were made without it. From
its errors one linear system corrects the profiles, and the filter beside the network gets its
weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.adaptation.adapted import Adapted, Options
from calibration.adaptation.calibration_data import CalibrationData, known_rows
from calibration.adaptation.held_out import EVERY, held_out_bins
from calibration.adaptation.linear_filter import FoldDecodes, fit_filter
from calibration.adaptation.profile_step import profile_step
from calibration.adaptation.scores import LEAD_IN_S, bins_of
from calibration.adaptation.sensitivity import (
    Sensitivity,
    bins_between,
    network_of,
    newest,
    sensitivity,
)
from calibration.errors import CalibrationError
from decoders.streaming.drift import follow_share
from decoders.streaming.shape import StreamingConfig
from decoders.streaming.tuning import (
    CAUTION,
    DRIFT,
    TuningSums,
    counts_matrix,
    log_evidence,
    profiles_given,
    regressors,
    residual_variance,
    slope_covariance,
    tuning_sums,
)
from decoders.streaming.unit_tables import NEEDED, UnitTables
from export.backends.onnxruntime_cpu import OnnxruntimeBackend
from export.bundle import DecoderBundle
from streams.messages import Float32s, Float64s, Int64s

RUN_UP_S = 2.0
USUALLY_SAME, PRIOR_UNITS = 0.9, 4.0
"""Share of units that are the same on a next day, and how many units that belief counts for."""
N_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Units as the tables hold them.

    Attributes:
        profile: (U, P).
        embedding: (U, d_unit).
        table: (U, table_width).
        session: (d_readout,) session vector.
        same: (U,) probability that a unit is the one that it was; 0 for an unknown one.
    """

    profile: Float64s
    embedding: Float32s
    table: Float32s
    session: Float32s
    same: Float64s

    @property
    def start(self) -> str:
        """Name of the start that most units have."""
        return "drifted" if self.same.mean() > 0.5 else "activity"


class ClosedForm:
    """A decoder that is adapted again and again, as labelled seconds come in.

    Args:
        bundle: the decoder.

    Raises:
        CalibrationError: it does not hold what maps profiles to tables.
    """

    def __init__(self, bundle: DecoderBundle) -> None:
        weights, manifest = bundle.weights(), bundle.manifest
        config = manifest.training.get("config")
        if not isinstance(config, dict) or any(name not in weights for name in NEEDED):
            raise CalibrationError(
                f"decoder {manifest.name!r} does not hold the network from profiles to tables, "
                "which --no-gradient needs: export it again from its run, or adapt without "
                "--no-gradient"
            )
        self.bundle, self.shape = bundle, StreamingConfig.from_dict(config)
        self.units = UnitTables(weights, self.shape)
        self._weights = weights
        self._embedding, self._profile = weights["units.embedding"], weights["units.profile"]
        self._usual_session, self._last_session = weights["units.session"], bundle.tables["session"]
        self._graph = bundle.graph_path.read_bytes()
        names = [output.name for output in manifest.outputs]
        self._backend = OnnxruntimeBackend(self._graph, manifest.graph, bundle.tables, names)

    def adapt(self, data: CalibrationData, options: Options) -> Adapted:
        """Make today's tables from the labelled seconds.

        Raises:
            CalibrationError: on the same array, no key is known.
        """
        part, sums, row = data.recording.train, _Sums(data), self._rows_of(data, options)
        held_out = held_out_bins(data, EVERY)
        without = [self._unit_rows(sums.of(data.labelled & ~left), row) for left in held_out]
        found = self._unit_rows(sums.of(data.labelled), row)
        slopes = self.sensitivity(found, data)
        folds = held_out[:, part.first + slopes.at]
        unseen = self._without_seeing(data, held_out, without)
        decoded = unseen[slopes.at]
        if not len(held_out):
            decoded = slopes.answer.astype(np.float64)
        covariance = self._covariance(found, sums.of(data.labelled))
        step = profile_step(slopes, decoded, covariance, data, folds)
        found = self.moved(found, step.change)
        tables = self._tables(found, data)
        beside = None
        if self.shape.taps_s:
            by_network = np.full((part.last - part.first, len(data.scale)), np.nan)
            by_network[slopes.at] = step.decoded
            left_out = held_out[:, part.first : part.last]
            beside = fit_filter(self.shape, data, [FoldDecodes(o, by_network) for o in left_out])
            tables |= beside.tables(data.recording.spikes_per_bin)
            tables |= self._drift_tables(found, tables["centre"], data, options)
        return Adapted(
            graph=self._graph,
            tables=tables,
            spikes_per_bin=data.recording.spikes_per_bin,
            filter_share=beside.shares(data.outputs) if beside else {},
            learnt={
                "units.embedding": found.embedding,
                "units.profile": found.profile.astype(np.float32),
            },
            window_of=bins_of(data),
            lead_in_s=LEAD_IN_S,
            start=found.start,
            n_steps=0,
            n_steps_unfrozen=0,
            n_tokens=np.diff(data.recording.tokens.offsets[part.first : part.last + 1]),
            unseen=_of_held_out(unseen, held_out, data),
        )

    def decode(self, found: Adapted, data: CalibrationData, first: int, last: int) -> Float64s:
        """Decode bins `first .. last` of a session by an adapted decoder, after a run-up.

        The session may be longer than the one that was learnt from: a trial is scored by the
        decoder that was made before it.

        Args:
            found: from `adapt`.
            data: the session, its units those of `found`.
            first: first bin.
            last: bin after the last.

        Returns:
            (last - first, n_dims) in physical units, class probabilities for classes.
        """
        window_of, own = bins_of(data), np.arange(len(data.recording.unit_keys), dtype=np.int32)
        self._backend.reset()
        self._backend.set_tables(found.tables)
        decoded = np.zeros((last - first, len(data.scale)))
        for i in range(max(0, first - round(RUN_UP_S / data.hop_s)), last):
            answer = self._backend.step(window_of(i, own), lead_s=0.0)
            if i >= first:
                decoded[i - first] = np.concatenate(list(answer.values()))
        return decoded

    def _rows_of(self, data: CalibrationData, options: Options) -> np.ndarray:
        """(U,) each unit's row in the bundle, -1 for a unit that it does not know."""
        keys = data.recording.unit_keys
        if not options.same_array:
            return np.full(len(keys), -1)
        return known_rows(self.bundle.row_of_key, keys)

    def _unit_rows(self, sums: TuningSums, row: np.ndarray) -> UnitRows:
        """Units from their activity; those that are as they were move from their last day."""
        profile = self.units.profiles_from(sums)
        embedding = self.units.embeddings(profile)
        known = np.flatnonzero(row >= 0)
        is_same = np.zeros(len(row))
        if len(known):
            was = self._profile[row[known]].astype(np.float64)
            sums, spread = sums.of_units(known), self.units.spread * DRIFT
            now = profiles_given(sums, was[:, :-1], spread, CAUTION)
            moved = self.units.embeddings(now) - self.units.embeddings(was)
            last = self._embedding[row[known]] + moved
            noise = CAUTION * residual_variance(sums, profile[known, :-1])
            for_same = log_evidence(sums, was[:, :-1], spread, noise)
            for_new = log_evidence(sums, self.units.usual_slopes, self.units.spread, noise)
            is_same[known] = same = posterior_same(for_same - for_new)
            embedding[known] += same[:, None].astype(np.float32) * (last - embedding[known])
            profile[known] += same[:, None] * (now - profile[known])
        # A new array is read by the usual session vector, and so are new units.
        share = np.float32(is_same.mean())
        session = self._usual_session + share * (self._last_session - self._usual_session)
        return UnitRows(profile, embedding, self.units.rows(embedding), session, is_same)

    def _tables(self, found: UnitRows, data: CalibrationData) -> dict[str, np.ndarray]:
        centre = self.units.centre(found.table, data.recording.spikes_per_bin)
        return {"table": found.table, "session": found.session, "centre": centre}

    def unit_rows(self, data: CalibrationData, options: Options) -> UnitRows:
        """Units from all labelled seconds, as tuning tells them."""
        return self._unit_rows(_Sums(data).of(data.labelled), self._rows_of(data, options))

    def sensitivity(self, found: UnitRows, data: CalibrationData) -> Sensitivity:
        """Find how the answers in the labelled part depend on the units' profiles."""
        tables = _silent(self.bundle.tables, len(found.table)) | self._tables(found, data)
        return sensitivity(self._weights, self.units, tables, found.embedding, data)

    def _covariance(self, found: UnitRows, sums: TuningSums) -> Float64s:
        """(U, P - 1, P - 1) how far tuning leaves the slopes open."""
        noise = CAUTION * residual_variance(sums, found.profile[:, :-1])
        wide = DRIFT * found.same + 1.0 - found.same
        return slope_covariance(sums, wide[:, None, None] * self.units.spread, noise)

    def moved(self, found: UnitRows, change: Float64s) -> UnitRows:
        """Embeddings after a (U, P - 1) change; profiles stay what tuning tells."""
        step = change.astype(np.float32) @ self.units.directions[:, :-1].T
        embedding = found.embedding + step
        return replace(found, embedding=embedding, table=self.units.rows(embedding))

    def _drift_tables(
        self, found: UnitRows, centre: np.ndarray, data: CalibrationData, options: Options
    ) -> dict[str, np.ndarray]:
        """Return the usual of the labelled seconds, from where drift is followed."""
        part, share = data.recording.train, follow_share(self.shape.bin_s)
        usual = self.units.usual_latents(found.table, data.recording.tokens, part.first, part.last)
        follow = np.array([share if options.follow_drift else 0.0], np.float32)
        return {"usual": usual - centre, "follow": follow}

    def _without_seeing(
        self, data: CalibrationData, held_out: np.ndarray, without: Sequence[UnitRows]
    ) -> Float64s:
        """(n_bins, n_dims) of the labelled part, on the decoder's scale, in one pass.

        Each held-out trial is decoded by tables that were made without it; NaN where there are
        none, and before the newest part.
        """
        part, looked_at = data.recording.train, newest(data)
        decoded = np.full((part.last - part.first, len(data.scale)), np.nan)
        if not len(held_out):
            return decoded
        silent = _silent(self.bundle.tables, len(data.recording.unit_keys))
        networks = [
            network_of(self._weights, self.units, silent | self._tables(found, data))
            for found in without
        ]
        first = max(0, looked_at.first - round(RUN_UP_S / data.hop_s))
        fold_of = _fold_of(held_out)[first : looked_at.last]
        trace = networks[0].run_in_turn(
            networks, fold_of, bins_between(data, first, looked_at.last)
        )
        raw = np.zeros((len(fold_of), len(data.scale)))
        for fold, network in enumerate(networks):
            own = np.flatnonzero(fold_of == fold)
            raw[own] = network.read(trace.memory[own + 1])[0]
        raw = raw[looked_at.first - first :]
        decoded[looked_at.first - part.first :] = (raw - data.offset) / data.scale
        return decoded


def posterior_same(log_odds: Float64s) -> Float64s:
    """(n,) probability that each unit is the one that it was.

    How many are the same is learnt from the units themselves, so that keys of another array, or
    renumbered ones, are not trusted.

    Args:
        log_odds: (n,) log evidence for the unit of the last day, against any other unit.
    """
    share = USUALLY_SAME
    for _ in range(N_ROUNDS):
        odds = np.exp(np.clip(log_odds, -50.0, 50.0)) * share / (1.0 - share)
        same: Float64s = odds / (1.0 + odds)
        share = (same.sum() + PRIOR_UNITS * USUALLY_SAME) / (len(same) + PRIOR_UNITS)
    return same


class _Sums:
    """Tuning sums over any of a session's bins."""

    def __init__(self, data: CalibrationData) -> None:
        keys = data.recording.unit_keys
        self.counts = counts_matrix(data.recording.tokens, len(keys))
        self.behavior = regressors(data.targets, data.outputs, data.offset, data.scale, data.hop_s)

    def of(self, chosen: np.ndarray) -> TuningSums:
        """Sums over (n_bins,) bool bins."""
        return tuning_sums(self.counts[chosen], self.behavior[chosen])


def _fold_of(held_out: np.ndarray) -> Int64s:
    """(n_bins,) the fold whose tables decode each bin; between its trials, that of the bin before.

    Args:
        held_out: (n_folds, n_bins) bool, no two of them alike.
    """
    begins = np.where(held_out.any(axis=0), np.arange(held_out.shape[1]), 0)
    fold_of: Int64s = held_out.argmax(axis=0)[np.maximum.accumulate(begins)]
    return fold_of


def _of_held_out(unseen: Float64s, held_out: np.ndarray, data: CalibrationData) -> Float64s | None:
    """(n_bins, n_dims) in physical units, NaN where nothing was held out; None for no fold."""
    if not len(held_out):
        return None
    part = data.recording.train
    told = np.full((data.recording.n_bins, len(data.scale)), np.nan)
    told[part.first : part.last] = unseen * data.scale + data.offset
    told[~held_out.any(axis=0)] = np.nan
    return told


def _silent(tables: Mapping[str, np.ndarray], n_rows: int) -> dict[str, np.ndarray]:
    """Tables of filter and drift that do nothing, for so many units."""
    silent = {
        name: np.zeros_like(value)
        for name, value in tables.items()
        if name not in ("table", "session", "centre")
    }
    if "filter_rows" in silent:
        width = silent["filter_rows"].shape[1]
        silent["filter_rows"] = np.zeros((n_rows, width), np.float32)
    return silent


def adapt_closed_form(bundle: DecoderBundle, data: CalibrationData, options: Options) -> Adapted:
    """Adapt a streaming decoder once; see `ClosedForm`.

    Raises:
        CalibrationError: as of `ClosedForm` and its `adapt`.
    """
    return ClosedForm(bundle).adapt(data, options)
