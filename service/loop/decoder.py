"""A decoder in service: its bundle's backend, and its rows for the source's units."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from export.backends.opening import Backend, Predecodes
from export.errors import BackendError
from export.manifest import Manifest
from service.loop.journal import NO_JOURNAL, Journal
from service.loop.token_cap import LIMIT_OF_HOP
from streams.messages import Int64s, SpikeBatch, TokenWindow
from streams.spikes.kernels.choose import NUMPY, Kernels
from streams.spikes.tokenizer import Tokenizer

Raw = Mapping[str, np.ndarray]
_numbers = itertools.count(1)


class Decoder:
    """A bundle that runs bin after bin.

    Attributes:
        number: by which the journal knows it; no other decoder of the process has it.
        last_k: the beat whose bin it ran last.
        k_reset: the beat after which its memory began.
        row_of: (n_source_units,) int32, its row for each source unit; -1 where unknown.
        known: (n_source_units,) bool.
        failure: the backend's last failure; None while there was none.
        kernels: functions that make its tokens.
        n_fitting: tokens per bin that decoding has time for; None if the backend was not timed.

    Args:
        manifest: the bundle's.
        backend: opened on it.
        row_of_key: the bundle's unit map.
        source_keys: the source's growing key list.
        token_cap: tokens per bin at most; None for no cap.
        step_s: seconds per step at the largest bucket; None if the backend was not timed.
        kernels: see above.
        journal: is told of what its memory depends on.
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
        journal: Journal = NO_JOURNAL,
    ) -> None:
        self.number, self._journal = next(_numbers), journal
        self.manifest, self.backend, self.kernels = manifest, backend, kernels
        self._predecodes = backend if isinstance(backend, Predecodes) else None
        self.failure: BackendError | None = None
        limits = [n for n in (token_cap, backend.n_most_tokens) if n is not None]
        self._token_cap = token_cap = min(limits, default=None)
        self.n_fitting = None if step_s is None else _fitting(manifest, step_s)
        self.names = [output.name for output in manifest.outputs]
        self.units = {output.name: output.unit for output in manifest.outputs}
        self.last_k = self.k_reset = 0
        self._bounds = [
            (output.name, tuple(zip(output.low, output.high, strict=True)))
            for output in manifest.outputs
        ]
        self._row_of_key, self._source_keys = row_of_key, source_keys
        self.row_of = np.zeros(0, np.int32)
        self.known = np.zeros(0, np.bool_)
        bin_us = round(manifest.bin_s * 1e6)
        self.tokenizer = Tokenizer(bin_us, self.row_of, token_cap, kernels)
        self.follow_source()

    @property
    def has_memory(self) -> bool:
        """True if its network carries memory from bin to bin."""
        return bool(self.manifest.graph.memory)

    @property
    def can_predecode(self) -> bool:
        """True if its backend can run a bin without advancing the memory."""
        return self._predecodes is not None

    def follow_source(self) -> bool:
        """Give rows to the source's new keys; return True if there were any."""
        if len(self.row_of) == len(self._source_keys):
            return False
        new = self._source_keys[len(self.row_of) :]
        rows = np.array([self._row_of_key.get(key, -1) for key in new], dtype=np.int32)
        self.row_of = np.concatenate((self.row_of, rows))
        self.known = self.row_of >= 0
        self.tokenizer.row_of = self.row_of
        return True

    def cap(self, n_most: int | None) -> None:
        """Limit the tokens in bins to come; its own limit holds, too."""
        fixed = self._token_cap
        if n_most is None or fixed is None:
            self.tokenizer.token_cap = fixed if n_most is None else n_most
        else:
            self.tokenizer.token_cap = min(fixed, n_most)

    def cut(self, spikes: SpikeBatch, end_us: int, t_window: float) -> tuple[TokenWindow, Int64s]:
        """Return the tokens in the bin that ends there, and each one's index into `spikes`."""
        return self.tokenizer.cut(spikes, end_us, t_window)

    def run(self, window: TokenWindow, k: int, lead_s: float) -> Raw | None:
        """Run beat k's bin; None if the backend failed. The memory begins anew after a fault."""
        self.last_k = k  # also if it fails: a bin is not run again
        try:
            raw = self.backend.step(window, lead_s)
        except BackendError as error:
            self.failure = error
            self._journal.failed(self.number, k, str(error))
            self.forget(k)
            return None
        self._journal.ran(self.number, k, window, lead_s, self.tokenizer.token_cap)
        if not is_finite(raw):  # the memory is not finite either, and would stay so
            self.forget(k)
        return raw

    def predecode(self, window: TokenWindow, lead_s: float) -> Raw | None:
        """Run a bin that may still grow; the memory stays. None if the backend cannot."""
        if self._predecodes is None:
            return None
        with contextlib.suppress(BackendError):  # `run` of the same bin will report it
            return self._predecodes.predecode(window, lead_s)
        return None

    def accept(self, raw: Raw, k: int, window: TokenWindow, lead_s: float) -> None:
        """Advance the memory by the newest `predecode`, as `run` would have with beat k's bin."""
        self.last_k = k
        self._journal.ran(self.number, k, window, lead_s, self.tokenizer.token_cap)
        if self._predecodes is not None:
            self._predecodes.accept()
        if not is_finite(raw):
            self.forget(k)

    def forget(self, k: int) -> None:
        """Begin the memory anew after beat k."""
        self._journal.forgot(self.number, k)
        self.backend.reset()
        self.k_reset = k

    def skip_to(self, k: int) -> None:
        """Take the bins up to beat k's as run."""
        self.last_k = max(self.last_k, k)

    def outside(self, raw: Raw) -> str:
        """Return the first output that is not within the manifest's `low` and `high`, or ""."""
        for name, bounds in self._bounds:
            for value, (low, high) in zip(raw[name].tolist(), bounds, strict=True):
                if not low <= value <= high:
                    return name
        return ""


def _fitting(manifest: Manifest, step_s: float) -> int:
    return int(manifest.token_buckets[-1] * LIMIT_OF_HOP * manifest.hop_s / max(step_s, 1e-9))


def is_finite(raw: Raw) -> bool:
    """Return True if every output is finite."""
    return all(map(math.isfinite, chain.from_iterable(v.tolist() for v in raw.values())))


class Outcome(NamedTuple):
    """One bin run by a decoder: the bin, the network's answer, and when.

    A bin is run while its last spikes are waited for (predecoded), or once it is cut.

    Attributes:
        decoder: the decoder that ran it.
        k: the beat.
        lead_s: how far ahead the network estimates.
        spikes: the bin's.
        slots: where the ring holds them.
        window: their tokens.
        kept: each token's index into `spikes`.
        raw: the network's answer, valid until the backend runs again; None if the backend failed.
        memory: the decoder's `last_k` and `k_reset` before the run.
        token_cap: in force for the bin.
        t_cut: from here on no spike is taken into the bin.
        t_tokens: the graph began; `t_cut` if the bin was predecoded.
        t_done: the graph was done; if it was predecoded, the outcome was confirmed.
        run_s: how long tokenizing and graph took, also if they ran before `t_cut`.
        was_predecoded: True if the bin was run before it was cut.
    """

    decoder: Decoder
    k: int
    lead_s: float
    spikes: SpikeBatch
    slots: Int64s
    window: TokenWindow
    kept: Int64s
    raw: Raw | None
    memory: tuple[int, int]
    token_cap: int | None
    t_cut: float
    t_tokens: float
    t_done: float
    run_s: float
    was_predecoded: bool = False

    def holds_for(self, decoder: Decoder, k: int, lead_s: float) -> bool:
        """Return True if `decoder` would decode beat k's same spikes alike now."""
        return (
            self.k == k
            and self.decoder is decoder
            and self.memory == (decoder.last_k, decoder.k_reset)
            and self.lead_s == lead_s
            and self.token_cap == decoder.tokenizer.token_cap
        )

    def confirmed(self, t_cut: float, t_done: float) -> Outcome:
        """Return the predecoded outcome for the bin that was cut at `t_cut`."""
        return Outcome(
            self.decoder, self.k, self.lead_s, self.spikes, self.slots, self.window, self.kept,
            self.raw, self.memory, self.token_cap, t_cut, t_cut, t_done, self.run_s,
            was_predecoded=True,
        )  # fmt: skip


def no_outcome(decoder: Decoder, k: int, lead_s: float, t_window: float, t_s: float) -> Outcome:
    """Return an outcome for a bin that no network has run."""
    ints, floats = np.zeros(0, np.int32), np.zeros(0, np.float32)
    none = np.zeros(0, np.int64)
    window = TokenWindow(ints, floats, floats, t_window)
    return Outcome(
        decoder, k, lead_s, SpikeBatch(none, ints, ints), none, window, none, None, (0, 0), None,
        t_s, t_s, t_s, 0.0,
    )  # fmt: skip
