"""Embeddings for named things; names are stored with the weights, as in torch_brain."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoders.errors import DecodersError

PADDING = "NA"


class VocabularyError(DecodersError):
    """A word is not in a network's vocabulary, or stands there twice."""


class Vocabulary(nn.Module):
    """One embedding per word; row 0 belongs to padding, is zero and stays zero.

    Args:
        words: ordered by row, from row 1 on.
        dim: embedding width.
        spread: the random start's standard deviation.

    Raises:
        VocabularyError: a word comes twice.
    """

    def __init__(self, words: Sequence[str], dim: int, spread: float) -> None:
        super().__init__()
        self.vocab = OrderedDict((word, i) for i, word in enumerate((PADDING, *words)))
        if len(self.vocab) != len(words) + 1:
            raise VocabularyError(f"of {len(words)} words some stand twice, or one is {PADDING!r}")
        weight = torch.randn(len(self.vocab), dim) * spread
        weight[0] = 0.0
        self.weight = nn.Parameter(weight)

    @property
    def words(self) -> list[str]:
        """All words but the padding, ordered by row."""
        return list(self.vocab)[1:]

    def forward(self, index: Tensor) -> Tensor:
        """(...,) int64 -> (..., dim)."""
        return functional.embedding(index, self.weight, padding_idx=0)

    def index(self, words: Sequence[str]) -> Tensor:
        """Rows for the words, (n,) int64.

        Raises:
            VocabularyError: a word is unknown; the text names some that are known.
        """
        unknown = [word for word in words if word not in self.vocab]
        if unknown:
            raise VocabularyError(
                f"the vocabulary has no {', '.join(unknown[:3])}; "
                f"it has {len(self.words)} words: {', '.join(self.words[:3])} ..."
            )
        return torch.tensor([self.vocab[word] for word in words], dtype=torch.int64)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "vocab"] = self.vocab.copy()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *further: Any) -> None:
        """Words that come with the weights must be the module's own, each at its row."""
        vocab = state_dict.pop(prefix + "vocab", self.vocab)
        if vocab != self.vocab:
            raise VocabularyError(f"{prefix}vocab holds other words, or in another order")
        super()._load_from_state_dict(state_dict, prefix, *further)
