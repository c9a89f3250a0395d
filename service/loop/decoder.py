"""A decoder in service: its bundle's backend, its rows of the source's units, and how it judges."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from export.backends import Backend, DecodesAhead
from export.errors import BackendError
from export.manifest import Manifest
from service.loop.shaping import Shaper
from service.loop.token_cap import LIMIT_OF_HOP
from service.loop.validity import ValidityJudge
from streams.messages import Int64s, SpikeBatch, TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.tokenizer import Tokenizer

Raw = Mapping[str, np.ndarray]


class Decoder:
    """A bundle that runs beat after beat.

    Attributes:
        last_k: the beat whose bin it ran last.
        k_reset: the beat after which its memory began.
        row_of: (n_source_units,) int32, its row of each source unit; -1 where unknown.
        known: (n_source_units,) bool.
        failure: what its backend failed with last; None while it never did.
        kernels: functions that make its tokens.
        n_fitting: tokens of a bin that decoding has time for; None where nobody timed it.

    Args:
        manifest: of the bundle.
        backend: opened on it.
        row_of_key: the bundle's unit map.
        source_keys: the source's growing list of keys.
        token_cap: at most this many tokens a bin; None for no cap.
        step_s: what a step at the largest bucket takes, seconds; None where nobody timed it.
        kernels: see above.
    """

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        row_of_key: Mapping[str, int],
        source_keys: Sequence[str],
        token_cap: int | None = None,
        step_s: float | None = None,
        kernels: Kernels = NUMPY,
    ) -> None:
        self.manifest, self.backend, self.kernels = manifest, backend, kernels
        self._ahead = backend if isinstance(backend, DecodesAhead) else None
        self.failure: BackendError | None = None
        limits = [n for n in (token_cap, backend.n_most_tokens) if n is not None]
        self._token_cap = token_cap = min(limits, default=None)
        self.n_fitting = None if step_s is None else _fitting(manifest, step_s)
        self.names = [output.name for output in manifest.outputs]
        self.units = {output.name: output.unit for output in manifest.outputs}
        self.last_k = self.k_reset = 0
        self._bounds = [
            (output.name, np.array(output.low), np.array(output.high))
            for output in manifest.outputs
        ]
        self._row_of_key, self._source_keys = row_of_key, source_keys
        self.row_of = np.zeros(0, np.int32)
        self.known = np.zeros(0, np.bool_)
        bin_us = round(manifest.bin_s * 1e6)
        self.tokenizer = Tokenizer(bin_us, self.row_of, token_cap, kernels)
        self.follow_source()

    def follow_source(self) -> bool:
        """Give rows to the keys that the source has shown since; whether there were any."""
        if len(self.row_of) == len(self._source_keys):
            return False
        new = self._source_keys[len(self.row_of) :]
        rows = np.array([self._row_of_key.get(key, -1) for key in new], dtype=np.int32)
        self.row_of = np.concatenate((self.row_of, rows))
        self.known = self.row_of >= 0
        self.tokenizer.row_of = self.row_of
        return True

    def cap(self, n_most: int | None) -> None:
        """Let no bin from now on hold more tokens than this, or than it was made for."""
        fixed = self._token_cap
        if n_most is None or fixed is None:
            self.tokenizer.token_cap = fixed if n_most is None else n_most
        else:
            self.tokenizer.token_cap = min(fixed, n_most)

    def cut(self, spikes: SpikeBatch, k: int, t_window: float) -> tuple[TokenWindow, Int64s]:
        """The tokens of beat k's bin, and the index into `spikes` of each."""
        return self.tokenizer.cut(spikes, k * round(self.manifest.hop_s * 1e6), t_window)

    def run(self, window: TokenWindow, k: int, lead_s: float) -> Raw | None:
        """Run beat k's bin; None when the backend failed. The memory begins anew after a fault."""
        self.last_k = k
        try:
            raw = self.backend.step(window, lead_s)
        except BackendError as error:
            self.failure = error
            self.forget(k)
            return None
        if not is_finite(raw):
            self.forget(k)
        return raw

    @property
    def can_rehearse(self) -> bool:
        """Whether its backend can run a bin without consequence."""
        return self._ahead is not None

    def rehearse(self, window: TokenWindow, lead_s: float) -> Raw | None:
        """Run a bin as it may yet be, without consequence; None where the backend cannot."""
        if self._ahead is None:
            return None
        with contextlib.suppress(BackendError):  # the step itself will say so
            return self._ahead.rehearse(window, lead_s)
        return None

    def accept(self, raw: Raw, k: int) -> None:
        """What `rehearse` gave last is what `run` of beat k's bin would have given."""
        self.last_k = k
        if self._ahead is not None:
            self._ahead.accept()
        if not is_finite(raw):
            self.forget(k)

    def forget(self, k: int) -> None:
        """Begin the memory anew after beat k."""
        self.backend.reset()
        self.k_reset = k

    def in_range(self, raw: Raw) -> bool:
        """Whether every output lies between the manifest's `low` and `high`."""
        return all(
            bool((raw[name] >= low).all() and (raw[name] <= high).all())
            for name, low, high in self._bounds
        )


def _fitting(manifest: Manifest, step_s: float) -> int:
    return int(manifest.token_buckets[-1] * LIMIT_OF_HOP * manifest.hop_s / max(step_s, 1e-9))


def is_finite(raw: Raw) -> bool:
    """Whether every output is finite."""
    return all(map(math.isfinite, chain.from_iterable(v.tolist() for v in raw.values())))


class Seat:
    """A decoder's place in the beat: in service, in shadow, or standing by.

    Args:
        decoder: who sits there.
        judge: of its decodes' validity.
        shaper: of its values.
    """

    def __init__(self, decoder: Decoder, judge: ValidityJudge, shaper: Shaper) -> None:
        self.decoder, self.judge, self.shaper = decoder, judge, shaper
        self.seq = 0
        self.reason = "context_short"
