"""Kinds of stream that `lint` tells apart; without numpy, as the command line asks for them."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["spikes", "counts", "markers", "position", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
