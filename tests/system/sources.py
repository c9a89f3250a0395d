"""Sources in the test's own process: they send what a test asks for, when it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from streams.lsl.description import KEEP_ALIVE_EVERY_S
from streams.lsl.outlets import SpikeOutlet, ValuesOutlet
from tests.system.running import clock, wait_until

SPIKES_EVERY_S = 0.01


class Living:
    """A source that sends a spike every 10 ms, its units in turn, and keep-alives.

    It lives as long as somebody calls `send_due`.

    Args:
        name: of the stream.
        keys: of its units.
        source_id: None for the name.
        n_firing: so many of the units fire on their own; None for all.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        source_id: str | None = None,
        n_firing: int | None = None,
    ) -> None:
        self.name = name
        self._outlet = SpikeOutlet(name, name if source_id is None else source_id, keys)
        self._n_firing = len(keys) if n_firing is None else n_firing
        self._spike_s = self._alive_s = clock.now()
        self._n_fired = self.n_sent = 0
        self.newest_s = -np.inf

    def wait_for_listener(self, each: Callable[[], object] = lambda: None) -> None:
        """Wait until the daemon has opened the stream."""
        wait_until(self._outlet.has_consumers, each)

    def send_due(self) -> None:
        """Send what is due by now, stamped now, if anybody listens."""
        if not self._outlet.has_consumers():
            return
        now_s = clock.now()
        if self._n_firing and now_s >= self._spike_s:
            self._spike_s = now_s + SPIKES_EVERY_S
            self._n_fired += 1
            self.send([now_s], [self._n_fired % self._n_firing])
        if now_s >= self._alive_s:
            self._alive_s = now_s + KEEP_ALIVE_EVERY_S
            self._outlet.keep_alive(now_s)
            self.newest_s = max(self.newest_s, now_s)

    def send(self, t_s: Sequence[float], key_index: Sequence[int]) -> None:
        """Send spikes as they are."""
        self._outlet.push(np.asarray(t_s, np.float64), np.asarray(key_index, np.int32))
        self.n_sent += len(t_s)
        self.newest_s = max(self.newest_s, *t_s)

    def close(self) -> None:
        """Take the stream off the network."""
        self._outlet.close()


class Floats:
    """Spikes as floating-point samples with the labels of the test's choice.

    Args:
        name: of the stream, and its source_id.
        labels: of its channels.
        stream_type: of the stream.
    """

    def __init__(
        self, name: str, labels: Sequence[str] = ("unit", "seq"), stream_type: str = "Spikes"
    ) -> None:
        self._outlet = ValuesOutlet(name, stream_type, name, labels)

    def wait_for_listener(self, each: Callable[[], object] = lambda: None) -> None:
        """Wait until the daemon has opened the stream."""
        wait_until(self._outlet.has_consumers, each)

    def send(self, samples: Sequence[Sequence[float]], t_s: Sequence[float]) -> None:
        """Send samples of (n, n_channels) at (n,) stamps."""
        self._outlet.push_many(np.asarray(samples, np.float64), np.asarray(t_s, np.float64))

    def close(self) -> None:
        """Take the stream off the network."""
        self._outlet.close()
