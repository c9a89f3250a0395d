"""The decoder with the embeddings of its sessions: what training optimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from decoders.learning.lanes import Window
from decoders.streaming.decoder import StreamingConfig, StreamingDecoder
from decoders.streaming.identity import Census, Identity
from decoders.streaming.turning import Turning

EMBEDDING_SPREAD = 0.5
BEYOND_SPREAD = 0.1
OWN_DECAY = 0.1


class Noise:
    """Dropout masks, drawn for the lanes of all processes, of which this one keeps its own.

    Args:
        generator: shared by all processes.
        n_lanes: of all processes together.
        mine: the lanes of this process.
        dropout: chance that an activation is dropped.
        unit_dropout: largest chance that a unit is dropped; each lane draws its own below it.
        session_dropout: chance that a lane is treated as one of an unknown session.
        newcomers: chance that a lane's units are known by their profiles alone.
    """

    def __init__(
        self,
        generator: torch.Generator,
        n_lanes: int,
        mine: slice,
        dropout: float,
        unit_dropout: float,
        session_dropout: float,
        newcomers: float = 0.0,
    ) -> None:
        self.generator = generator
        self.n_lanes = n_lanes
        self.mine = mine
        self.dropout = dropout
        self.unit_dropout = unit_dropout
        self.session_dropout = session_dropout
        self.newcomers = newcomers

    def _draw(self, *shape: int) -> Tensor:
        return torch.rand(self.n_lanes, *shape, generator=self.generator)[self.mine]

    def drop(self, x: Tensor) -> Tensor:
        """Dropout on (B, T, d)."""
        keep = self._draw(*x.shape[1:]).to(x.device) >= self.dropout
        return x * keep / (1.0 - self.dropout)

    def kept_units(self, n_units: int) -> Tensor:
        """(B, n_units) of 0 and 1."""
        rate = self._draw(1) * self.unit_dropout
        return (self._draw(n_units) >= rate).float()

    def unknown_session(self) -> Tensor:
        """(B,) bool."""
        return self._draw() < self.session_dropout

    def new_units(self) -> Tensor:
        """(B,) bool."""
        return self._draw() < self.newcomers

    def variants(self, n_variants: int, n_sessions: int) -> Tensor:
        """(n_sessions,) which profiles newcomers have; the same in all processes."""
        return torch.randint(n_variants, (n_sessions,), generator=self.generator)


class SessionNetwork(nn.Module):
    """A `StreamingDecoder` and, for every session, unit embeddings and a session vector.

    A unit's embedding is what its profile tells, plus a part shared by all rows of its key, plus
    the row's own.

    Args:
        config: shape of the decoder.
        key_of_row: index of the shared embedding of each row.
        n_sessions: how many.
        max_units: of any session.
        spikes_per_bin: mean of each row; zero if None.
        n_profile: length of a unit's profile.
    """

    key_of_row: Tensor
    spikes_per_bin: Tensor
    profile: Tensor
    variants: Tensor
    session_of_row: Tensor

    def __init__(
        self,
        config: StreamingConfig,
        key_of_row: Sequence[int],
        n_sessions: int,
        max_units: int,
        spikes_per_bin: Tensor | None = None,
        n_profile: int = 2,
    ) -> None:
        super().__init__()
        self.decoder = StreamingDecoder(config)
        self.turning = Turning(
            [o.dims for o in config.outputs], [o.classes for o in config.outputs]
        )
        self.max_units = max_units
        n_keys = max(key_of_row) + 1
        self.identity = Identity(n_profile, config.d_unit, EMBEDDING_SPREAD)
        self.shared = nn.Parameter(torch.randn(n_keys, config.d_unit) * BEYOND_SPREAD)
        self.own = nn.Parameter(torch.zeros(len(key_of_row), config.d_unit))
        self.session = nn.Parameter(torch.zeros(n_sessions, config.d_readout))
        self.register_buffer("key_of_row", torch.tensor(key_of_row))
        mean = torch.zeros(len(key_of_row)) if spikes_per_bin is None else spikes_per_bin
        self.register_buffer("spikes_per_bin", mean)
        self.register_buffer("profile", torch.zeros(len(key_of_row), n_profile))
        self.register_buffer("variants", torch.zeros(0, 0, 0), persistent=False)
        self.register_buffer("session_of_row", torch.zeros(0, dtype=torch.int64), persistent=False)

    @property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """(n_dims,) offset and scale of the outputs."""
        return self.decoder.offset, self.decoder.scale

    @property
    def shape(self) -> dict[str, Any]:
        """The decoder's shape, as plain JSON types."""
        return self.decoder.config.to_dict()

    @property
    def n_parameters(self) -> int:
        """Trainable numbers of the decoder, without those of units and sessions."""
        return sum(p.numel() for p in self.decoder.parameters())

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Weight decay on the decoder's matrices; a stronger one on what a row has of its own."""
        learning = [p for p in self.decoder.parameters() if p.requires_grad]
        matrices = [p for p in learning if p.ndim > 1]
        vectors = [p for p in learning if p.ndim < 2]
        return [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": [*vectors, *self.identity.parameters()], "weight_decay": 0.0},
            {"params": [self.shared, self.own, self.session], "weight_decay": OWN_DECAY},
        ]

    def meet(self, census: Census) -> None:
        """Take in the profiles of the units that are trained on."""
        self.identity.learn_usual(census)
        self.profile = torch.from_numpy(census.best).float()
        self.variants = torch.from_numpy(census.variants).float()
        self.session_of_row = torch.from_numpy(census.session_of_row)

    def embeddings(self) -> Tensor:
        """(n_rows, d_unit)."""
        told: Tensor = self.identity(self.profile)
        return told + self.shared[self.key_of_row] + self.own

    def tables(self) -> Tensor:
        """Folded rows of every session's units."""
        return self.decoder.encoder.fold(self.embeddings())

    def _training_tables(self, noise: Noise, turns: Mapping[int, Tensor]) -> Tensor:
        """Folded rows, then as if the session were unknown, then those of newcomers."""
        known = self.embeddings()
        parts = [known, known - self.own]
        if noise.newcomers > 0.0:
            drawn = noise.variants(len(self.variants), len(self.session)).to(known.device)
            row = torch.arange(len(known), device=known.device)
            met = self.variants[drawn[self.session_of_row], row]
            parts.append(self.identity(self.turning.profiles(met, turns)))
        return self.decoder.encoder.fold(torch.cat(parts))

    def forward(
        self, window: Window, memory: Tensor, noise: Noise | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run a window.

        In training, lanes of newcomers see the world turned about its middle (see `turning`); their
        memory begins and ends with the window, as other windows have another world.

        Args:
            window: B lanes of T bins.
            memory: (B, d_memory).
            noise: dropout; None when not training.

        Returns:
            (B, T, n_dims) normalised outputs, and (B, d_memory) the memory after the window.
        """
        memory = memory * (~window.fresh).unsqueeze(-1)
        session, kept = self.session[window.session], torch.ones_like(window.present)
        if noise is None:
            return self._run(window, self.tables(), window.row, kept, session, memory, None)
        unknown, new = (v.to(memory.device) for v in (noise.unknown_session(), noise.new_units()))
        turns = self.turning.draw(noise.generator)
        session = torch.where((unknown | new).unsqueeze(-1), self.session.mean(0), session)
        part = torch.where(new, 2, unknown.long())
        row = window.row + part.unsqueeze(-1) * len(self.key_of_row)
        kept = noise.kept_units(self.max_units).to(memory.device)[:, : row.shape[1]]
        table, old = self._training_tables(noise, turns), (~new).unsqueeze(-1)
        answer, last = self._run(window, table, row, kept, session, memory * old, noise)
        answer = torch.where(old.unsqueeze(-1), answer, self.turning.back(answer, turns))
        return answer, last * old

    def _run(
        self,
        window: Window,
        table: Tensor,
        row: Tensor,
        kept: Tensor,
        session: Tensor,
        memory: Tensor,
        noise: Noise | None,
    ) -> tuple[Tensor, Tensor]:
        """Run a window with these rows of a table, units that are kept and session vectors."""
        count = window.count * kept[window.lane, window.unit]
        sums, centre = self._sums(window, table, row, count), self._centre(window, table, row, kept)
        x = self.decoder.mixed(sums, centre.unsqueeze(1))
        x = x if noise is None else noise.drop(x)
        path, last = self.decoder.gru(x, memory.unsqueeze(0))
        path = path if noise is None else noise.drop(path)
        answer = self.decoder.read(path, session.unsqueeze(1), window.lead_s[:, None, None])
        return answer, last.squeeze(0)

    @torch.no_grad()
    def standardise(self, window: Window) -> None:
        """Fix the scale of the latents from a window, once, before training."""
        table, row = self.tables(), window.row
        sums = self._sums(window, table, row, window.count)
        centre = self._centre(window, table, row, torch.ones(row.shape))
        self.decoder.standardise(sums, centre.unsqueeze(1))

    def _centre(self, window: Window, table: Tensor, row: Tensor, kept: Tensor) -> Tensor:
        """(B, n_pooled) of the units that are kept."""
        spikes_per_bin = self.spikes_per_bin[window.row] * window.present * kept
        return self.decoder.encoder.centre(table[row], spikes_per_bin)

    @torch.no_grad()
    def bundle_tables(
        self, i_session: int, own: Sequence[int], rows: Sequence[int]
    ) -> dict[str, Tensor]:
        """The graph's tables for one session.

        Args:
            i_session: which.
            own: its rows.
            rows: those of the bundle, which may add some of other sessions.
        """
        table, held = self.tables(), torch.tensor(own)
        return {
            "table": table[torch.tensor(rows)],
            "session": self.session[i_session].clone(),
            "centre": self.decoder.encoder.centre(table[held], self.spikes_per_bin[held]),
        }

    def of_units(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """What adaptation needs to know of a bundle's units, and of units in general."""
        held = torch.tensor(rows)
        identity = {f"identity.{k}": v for k, v in self.identity.state_dict().items()}
        return identity | {
            "units.embedding": self.embeddings()[held],
            "units.profile": self.profile[held],
            "units.session": self.session.mean(dim=0),
        }

    def _sums(self, window: Window, table: Tensor, row: Tensor, count: Tensor) -> Tensor:
        """Per bin and latent, the sums over its tokens: (B, T, n_latents, d_value + 1)."""
        encoder, config = self.decoder.encoder, self.decoder.config
        values = table[row][..., : config.d_value + 1]
        n_lanes, n_units = row.shape
        n_cells = n_lanes * window.n_bins
        cell = window.lane * window.n_bins + window.bin
        if config.n_frequencies == 0:
            dense = torch.zeros(n_cells * n_units, device=count.device)
            dense = dense.index_add(0, cell * n_units + window.unit, count)
            weights = torch.exp(table[row][..., config.d_value + 1 :])
            mixed = (weights.unsqueeze(-1) * values.unsqueeze(-2)).flatten(-2)
            sums = dense.view(n_lanes, window.n_bins, n_units) @ mixed
            return sums.view(n_lanes, window.n_bins, config.n_latents, -1)
        coefficients = table[row[window.lane, window.unit], config.d_value + 1 :]
        weights = encoder.weights(coefficients, window.t_rel, count)
        latent = torch.arange(config.n_latents, device=count.device) * n_units
        slot = (cell * config.n_latents * n_units + window.unit).unsqueeze(-1) + latent
        dense = torch.zeros(n_cells * config.n_latents * n_units, device=count.device)
        dense = dense.index_add(0, slot.flatten(), weights.flatten())
        sums = dense.view(n_lanes, -1, n_units) @ values
        return sums.view(n_lanes, window.n_bins, config.n_latents, -1)
