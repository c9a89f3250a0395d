"""Shape of a POYO network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class PoyoConfig:
    """Shape of a `Poyo`; JSON-serialisable. Defaults are torch_brain's.

    Attributes:
        sequence_s: window length, seconds.
        latent_step_s: latents stand at this spacing in the window, seconds.
        dim_out: numbers read out per query.
        n_latents_per_step: latents at each step.
        dim: token and latent width.
        depth: self-attention layers.
        dim_head: head width; half of it is rotated by time.
        cross_heads: heads in the two cross-attentions.
        self_heads: heads in a self-attention.
        ffn_dropout: inside the feed-forward networks.
        lin_dropout: on what each layer adds to the latents.
        atn_dropout: on attention weights.
        emb_init_scale: new embeddings' standard deviation.
        t_min_s: shortest rotary period, seconds; the longest is `t_max_s`.
        t_max_s: used for new networks only: a checkpoint brings its frequencies.
    """

    sequence_s: float
    latent_step_s: float
    dim_out: int
    n_latents_per_step: int = 64
    dim: int = 512
    depth: int = 2
    dim_head: int = 64
    cross_heads: int = 1
    self_heads: int = 8
    ffn_dropout: float = 0.2
    lin_dropout: float = 0.4
    atn_dropout: float = 0.0
    emb_init_scale: float = 0.02
    t_min_s: float = 1e-4
    t_max_s: float = 2.0627

    @property
    def n_rotated_pairs(self) -> int:
        """Rotary frequencies: a quarter of a head's width."""
        return self.dim_head // 4

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain JSON types; `PoyoConfig(**d)` is the inverse."""
        return asdict(self)


OWN_NAMES: Mapping[str, str] = {
    "sequence_length": "sequence_s",
    "latent_step": "latent_step_s",
    "num_latents_per_step": "n_latents_per_step",
    "t_min": "t_min_s",
    "t_max": "t_max_s",
}
"""torch_brain's names of constructor arguments, where ours differ."""


def from_torch_brain(arguments: Mapping[str, Any], dim_out: int) -> PoyoConfig:
    """The shape that torch_brain's constructor arguments describe.

    Raises:
        ValueError: an argument is unknown, lacking or no number; the text names it.
    """
    named = {OWN_NAMES.get(name, name): value for name, value in arguments.items()}
    unknown = sorted(named.keys() - {field.name for field in fields(PoyoConfig)})
    lacking = [name for name in ("sequence_length", "latent_step") if OWN_NAMES[name] not in named]
    odd = [n for n, v in arguments.items() if not isinstance(v, int | float) or not v >= 0]
    if unknown or lacking or odd:
        raise ValueError(
            f"unknown {unknown or 'none'}, lacking {lacking or 'none'}, no numbers {odd or 'none'}"
        )
    return PoyoConfig(**(named | {"dim_out": dim_out}))


def poyo_small(dim_out: int) -> PoyoConfig:
    """The published 1.3M network."""
    return PoyoConfig(
        sequence_s=1.0,
        latent_step_s=0.125,
        dim_out=dim_out,
        n_latents_per_step=16,
        dim=64,
        depth=6,
        cross_heads=2,
        atn_dropout=0.2,
    )


def poyo_large(dim_out: int) -> PoyoConfig:
    """The published 11.8M network."""
    larger = {"n_latents_per_step": 32, "dim": 128, "depth": 24, "cross_heads": 4}
    return replace(poyo_small(dim_out), **larger)
