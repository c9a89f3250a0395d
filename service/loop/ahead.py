"""A bin that was decoded before it was due: its decode, if nothing comes for it any more.

A beat waits for stamped spikes, and most waits end with none. What was decoded meanwhile is then
what decoding at the end of the wait would give, bit for bit: the same tokens, memory and tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.loop.decoder import Decoder, Raw
from service.loop.outcome import Schedule
from service.loop.token_cap import TokenCap
from streams.clock import Clock
from streams.messages import Int64s, SpikeBatch, TokenWindow
from streams.spikes.ring import SpikeRing


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


class Rehearsal:
    """Decodes the bin to come, as far as it has come; the beat's thread owns it.

    Attributes:
        newest: the newest decode of a bin that is not over.
        taken_s: how long it took.

    Args:
        clock: the daemon's clock.
        ring: where spikes wait.
        schedule: when beats fall.
    """

    def __init__(self, clock: Clock, ring: SpikeRing, schedule: Schedule) -> None:
        self.newest: Ahead | None = None
        self.taken_s = 0.0
        self._clock, self._ring, self._schedule = clock, ring, schedule

    def decode(self, decoder: Decoder, k: int, lead_s: float, cap: TokenCap | None) -> None:
        """Decode what has come of beat k; nothing is kept where the backend cannot, or fails."""
        t_s, self.newest = self._clock.now(), None
        spikes, slots = self._ring.cut(k * self._ring.hop_us)
        if cap is not None:
            cap.offer(len(spikes), decoder.n_fitting)
        decoder.cap(None if cap is None else cap.in_force)
        window, kept = decoder.cut(spikes, k, self._schedule.window_end_s(k))
        raw = decoder.rehearse(window, lead_s)
        t_done = self._clock.now()
        self.taken_s = t_done - t_s
        if raw is not None:
            self.newest = Ahead(
                decoder, k, lead_s, spikes, slots, window, kept, raw, t_done, self.taken_s,
                (decoder.last_k, decoder.k_reset), decoder.tokenizer.token_cap,
            )  # fmt: skip

    def standing(self, decoder: Decoder, k: int, lead_s: float) -> Ahead | None:
        """The decode made ahead, if decoding beat k now would give it again."""
        ahead = self.newest
        stands = (
            ahead is not None
            and ahead.would_be(decoder, k, lead_s)
            and self._ring.is_as_cut(k * self._ring.hop_us)
        )
        return ahead if stands else None

    def take(self, decoder: Decoder, k: int, lead_s: float) -> Ahead | None:
        """The same, and none from here on: the decoder is about to move."""
        standing, self.newest = self.standing(decoder, k, lead_s), None
        return standing
