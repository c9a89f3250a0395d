"""A bin that was decoded before it was due: its decode, if nothing comes for it any more.

A beat waits for stamped spikes, and most waits end with none. What was decoded meanwhile is then
what decoding at the end of the wait would give, bit for bit: the same tokens, memory and tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.loop.decoder import Decoder, Raw
from streams.messages import Int64s, SpikeBatch, TokenWindow


@dataclass(frozen=True, slots=True)
class Ahead:
    """A decode that may yet become beat k's.

    Attributes:
        decoder: who decoded.
        k: the beat.
        lead_s: how far ahead of the window's end.
        spikes: of the bin, as far as they had come.
        slots: where the ring holds them.
        window: their tokens.
        kept: index into `spikes` of each token.
        raw: what the network said; valid until the backend runs again.
        t_done: when the graph was done.
        run_s: how long cutting and the graph took.
        memory: which bin the decoder had run last, and after which its memory began.
        token_cap: in force for the bin.
    """

    decoder: Decoder
    k: int
    lead_s: float
    spikes: SpikeBatch
    slots: Int64s
    window: TokenWindow
    kept: Int64s
    raw: Raw
    t_done: float
    run_s: float
    memory: tuple[int, int]
    token_cap: int | None

    def would_be(self, decoder: Decoder, k: int, lead_s: float) -> bool:
        """Whether this decoder would decode the same spikes of beat k alike now."""
        return (
            self.k == k
            and self.decoder is decoder
            and self.memory == (decoder.last_k, decoder.k_reset)
            and self.lead_s == lead_s
            and self.token_cap == decoder.tokenizer.token_cap
        )
