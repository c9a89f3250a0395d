"""The decoder with its sessions' embeddings, as training optimises it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from decoders.streaming.decoder import StreamingDecoder
from decoders.streaming.profile_encoder import ProfileEncoder
from decoders.streaming.shape import StreamingConfig
from decoders.streaming.stateful_sampler import Window
from decoders.streaming.tuning import LAGS_S, UnitProfiles
from decoders.training.optimisation import decay_groups
from decoders.training.synthetic_sessions import LARGEST_ROTATED

EMBEDDING_SPREAD = 0.5
BEYOND_SPREAD = 0.1
OWN_DECAY = 0.1


class LaneNetwork(nn.Module):
    """Network that `Trainer` trains on lanes.

    `forward(window, memory, dropout)` gives (B, T, n_dims) normalised outputs for a `Window` and
    (B, d_memory) the memory after it, from (B, d_memory) the memory before.
    """

    d_memory: int

    @property
    @abstractmethod
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """(n_dims,) offset and scale of the outputs."""

    @property
    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """Sizes, as plain JSON types."""

    @property
    def n_parameters(self) -> int:
        """Count trainable parameters."""
        return sum(p.numel() for p in self.parameters())

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups, for the optimiser."""
        return decay_groups(self.parameters(), weight_decay)


class LaneDropout:
    """Dropout masks, drawn for all processes' lanes; each process keeps its own.

    Args:
        generator: shared by all processes.
        n_lanes: in all processes together.
        mine: lanes in this process.
        dropout: chance that an activation is dropped.
        unit_dropout: largest chance that a unit is dropped; each lane draws its own below it.
        session_dropout: chance that a lane's session is treated as unknown.
        unseen_units: chance that a lane's units are known by their profiles alone.
    """

    # No dataclass: mixed precision copies those, and with them the generator that all share.
    def __init__(
        self,
        generator: torch.Generator,
        n_lanes: int,
        mine: slice,
        dropout: float,
        unit_dropout: float,
        session_dropout: float,
        unseen_units: float = 0.0,
    ) -> None:
        self.generator, self.n_lanes, self.mine = generator, n_lanes, mine
        self.dropout, self.unit_dropout = dropout, unit_dropout
        self.session_dropout, self.unseen_units = session_dropout, unseen_units

    def draw(self, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return torch.rand(self.n_lanes, *shape, generator=self.generator)[self.mine]

    def drop(self, x: Tensor) -> Tensor:
        """Dropout on (B, T, d)."""
        keep = self.draw(*x.shape[1:]).to(x.device) >= self.dropout
        return x * keep / (1.0 - self.dropout)

    def kept_units(self, n_units: int) -> Tensor:
        """(B, n_units), 0 or 1."""
        rate = self.draw(1) * self.unit_dropout
        return (self.draw(n_units) >= rate).float()

    def variants(self, n_variants: int, n_sessions: int) -> Tensor:
        """(n_sessions,) profile variant for unseen units; the same in all processes."""
        return torch.randint(n_variants, (n_sessions,), generator=self.generator)


class SessionNetwork(LaneNetwork):
    """A `StreamingDecoder` and, for every session, unit embeddings and a session vector.

    A unit's embedding has three parts: one encodes its profile, one is shared by all rows with its
    key, one is the row's own. State dicts name the profile encoder `identity`.

    Args:
        config: decoder shape.
        key_of_row: each row's index among the shared embeddings.
        n_sessions: how many sessions.
        max_units: largest count in a session.
        spikes_per_bin: mean per row; zero if None.
        n_profile: profile length.
    """

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
        self.rotations = RotationAugmentation(
            [o.dims for o in config.outputs], [o.classes for o in config.outputs]
        )
        self.max_units, self.d_memory = max_units, config.d_memory
        n_keys = max(key_of_row) + 1
        self.identity = ProfileEncoder(n_profile, config.d_unit, EMBEDDING_SPREAD)
        self.shared = nn.Parameter(torch.randn(n_keys, config.d_unit) * BEYOND_SPREAD)
        self.own = nn.Parameter(torch.zeros(len(key_of_row), config.d_unit))
        self.session = nn.Parameter(torch.zeros(n_sessions, config.d_readout))
        self.key_of_row = nn.Buffer(torch.tensor(key_of_row))
        mean = torch.zeros(len(key_of_row)) if spikes_per_bin is None else spikes_per_bin
        self.spikes_per_bin = nn.Buffer(mean)
        self.profile = nn.Buffer(torch.zeros(len(key_of_row), n_profile))
        self.variants = nn.Buffer(torch.zeros(0, 0, 0), persistent=False)
        self.session_of_row = nn.Buffer(torch.zeros(0, dtype=torch.int64), persistent=False)

    @property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """(n_dims,) offset and scale of the outputs."""
        return self.decoder.offset, self.decoder.scale

    @property
    def shape(self) -> dict[str, Any]:
        """Decoder shape, as plain JSON types."""
        return self.decoder.config.to_dict()

    @property
    def n_parameters(self) -> int:
        """Count the decoder's trainable parameters, without embeddings."""
        return sum(p.numel() for p in self.decoder.parameters())

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Weight decay on the decoder's matrices; a stronger one on each row's own part."""
        learning = (p for p in self.decoder.parameters() if p.requires_grad)
        matrices, vectors = decay_groups(learning, weight_decay)
        vectors["params"] += self.identity.parameters()
        own = {"params": [self.shared, self.own, self.session], "weight_decay": OWN_DECAY}
        return [matrices, vectors, own]

    def set_profiles(self, profiles: UnitProfiles) -> None:
        """Set the training units' profiles."""
        self.identity.fit_statistics(profiles)
        self.profile = nn.Buffer(torch.from_numpy(profiles.best).float())
        variants = torch.from_numpy(profiles.variants).float()
        self.variants = nn.Buffer(variants, persistent=False)
        session_of_row = torch.from_numpy(profiles.session_of_row)
        self.session_of_row = nn.Buffer(session_of_row, persistent=False)

    def embeddings(self) -> Tensor:
        """(n_rows, d_unit)."""
        told: Tensor = self.identity(self.profile)
        return told + self.shared[self.key_of_row] + self.own

    def tables(self) -> Tensor:
        """Folded rows for every session's units."""
        return self.decoder.encoder.fold(self.embeddings())

    def _training_tables(self, dropout: LaneDropout, rotations: Mapping[int, Tensor]) -> Tensor:
        """Folded rows as they are, then without the rows' own part, then for unseen units."""
        known = self.embeddings()
        parts = [known, known - self.own]
        if dropout.unseen_units > 0.0:
            drawn = dropout.variants(len(self.variants), len(self.session)).to(known.device)
            row = torch.arange(len(known), device=known.device)
            profile = self.variants[drawn[self.session_of_row], row]
            parts.append(self.identity(self.rotations.profiles(profile, rotations)))
        return self.decoder.encoder.fold(torch.cat(parts))

    def forward(
        self, window: Window, memory: Tensor, dropout: LaneDropout | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run a window.

        In training, lanes with unseen units have their behaviour rotated about its mean (see
        `RotationAugmentation`). Each window has another rotation, so their memory begins and ends
        with the window.

        Args:
            window: B lanes, T bins each.
            memory: (B, d_memory).
            dropout: None when not training.

        Returns:
            (B, T, n_dims) normalised outputs, and (B, d_memory) the memory after the window.
        """
        memory = memory * (~window.fresh).unsqueeze(-1)
        session, kept = self.session[window.session], torch.ones_like(window.present)
        if dropout is None:
            return self._run(window, self.tables()[window.row], kept, session, memory, None)
        unknown = (dropout.draw() < dropout.session_dropout).to(memory.device)
        new = (dropout.draw() < dropout.unseen_units).to(memory.device)
        rotations = self.rotations.draw(dropout.generator)
        # Adaptation starts from the mean session vector, so training meets it too.
        session = torch.where((unknown | new).unsqueeze(-1), self.session.mean(0), session)
        # The table holds all rows three times; see `_training_tables`.
        part = torch.where(new, 2, unknown.long())
        row = window.row + part.unsqueeze(-1) * len(self.key_of_row)
        kept = dropout.kept_units(self.max_units).to(memory.device)[:, : row.shape[1]]
        rows, old = self._training_tables(dropout, rotations)[row], (~new).unsqueeze(-1)
        answer, last = self._run(window, rows, kept, session, memory * old, dropout)
        answer = torch.where(old.unsqueeze(-1), answer, self.rotations.back(answer, rotations))
        return answer, last * old

    def _run(
        self,
        window: Window,
        rows: Tensor,
        kept: Tensor,
        session: Tensor,
        memory: Tensor,
        dropout: LaneDropout | None,
    ) -> tuple[Tensor, Tensor]:
        """Run a window with (B, U, table_width) rows, units that are kept, and session vectors."""
        count = window.count * kept[window.lane, window.unit]
        sums = self.decoder.encoder.sums(rows, window.tokens(count))
        centre = self._centre(window, rows, kept)
        drop = None if dropout is None else dropout.drop
        answer: tuple[Tensor, Tensor] = self.decoder(
            sums, centre, session, window.lead_s, memory, drop
        )
        return answer

    @torch.no_grad()
    def standardise(self, window: Window) -> None:
        """Fix the latents' scale from a window, once, before training."""
        rows = self.tables()[window.row]
        sums = self.decoder.encoder.sums(rows, window.tokens(window.count))
        centre = self._centre(window, rows, torch.ones(window.row.shape))
        self.decoder.standardise(sums, centre.unsqueeze(1))

    def _centre(self, window: Window, rows: Tensor, kept: Tensor) -> Tensor:
        """(B, n_pooled) centre for the units that are kept."""
        spikes_per_bin = self.spikes_per_bin[window.row] * window.present * kept
        return self.decoder.encoder.centre(rows, spikes_per_bin)

    @torch.no_grad()
    def bundle_tables(
        self, i_session: int, own: Sequence[int], rows: Sequence[int]
    ) -> dict[str, Tensor]:
        """Graph tables for one session.

        Args:
            i_session: session index.
            own: its rows.
            rows: in the bundle; may add other sessions' rows.
        """
        table, held = self.tables(), torch.tensor(own)
        return {
            "table": table[torch.tensor(rows)],
            "session": self.session[i_session].clone(),
            "centre": self.decoder.encoder.centre(table[held], self.spikes_per_bin[held]),
        }

    def of_units(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Weights that adaptation needs: a bundle's units, and the profile encoder."""
        held = torch.tensor(rows)
        encoder = {f"identity.{k}": v for k, v in self.identity.state_dict().items()}
        return encoder | {
            "units.embedding": self.embeddings()[held],
            "units.profile": self.profile[held],
            "units.session": self.session.mean(dim=0),
        }


class RotationAugmentation:
    """Rotate behaviour about its mean in profiles, and rotate the network's answers back.

    A behaviour vector may be rotated or mirrored. A unit that followed it still does, with another
    profile. A profile encoder trained on all of these cannot memorise single units, and learns as
    much from few units as from many.

    Args:
        dims: per output.
        classes: per output, whether it is discrete.
    """

    def __init__(self, dims: Sequence[int], classes: Sequence[bool]) -> None:
        self._in_profile: list[tuple[int, int]] = []
        self._in_answer: list[tuple[int, int]] = []
        i_profile = i_answer = 0
        for n, is_class in zip(dims, classes, strict=True):
            if not is_class and n <= LARGEST_ROTATED:
                self._in_profile += [(i_profile + i * n, n) for i in range(len(LAGS_S))]
                self._in_answer.append((i_answer, n))
            i_profile += n if is_class else len(LAGS_S) * n + 1
            i_answer += n

    def draw(self, generator: torch.Generator) -> dict[int, Tensor]:
        """Draw a random orthogonal matrix for each dimension count."""
        rotations = {}
        for n in sorted({n for _, n in self._in_answer}):
            basis, upper = torch.linalg.qr(torch.randn(n, n, generator=generator))
            rotations[n] = basis * torch.sign(torch.diagonal(upper))
        return rotations

    def profiles(self, profile: Tensor, rotations: Mapping[int, Tensor]) -> Tensor:
        """(..., P) profiles for the same units, with rotated behaviour."""
        return _rotated(profile, self._in_profile, rotations)

    def back(self, answer: Tensor, rotations: Mapping[int, Tensor]) -> Tensor:
        """(..., n_dims) answers for rotated behaviour, rotated back."""
        return _rotated(answer, self._in_answer, {n: r.T for n, r in rotations.items()})


def _rotated(
    values: Tensor, places: Sequence[tuple[int, int]], rotations: Mapping[int, Tensor]
) -> Tensor:
    rotated = values.clone()
    for first, n in places:
        part = slice(first, first + n)
        rotated[..., part] = values[..., part] @ rotations[n].T.to(values.device)
    return rotated
