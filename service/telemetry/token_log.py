"""The token log: every arrival and every beat's tokens, so that any decode can be made again.

A file of frames, each a little-endian uint32 length and that many bytes of MessagePack: first a
`header`, then `keys` whenever the source showed new units, `arrival` and `beat`. Arrays are raw
little-endian bytes.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from service.loop.intake.arrivals import Arrival
from streams.messages import TokenWindow

_LENGTH = struct.Struct("<I")
FLUSH_EVERY_S = 0.2


class TokenLog(threading.Thread):
    """Appends records from the loop, in its own thread.

    Args:
        path: file to write; replaced if it is there.
        header: the run's (`run_id`, `t0_s`, `hop_us`, `bin_us`, `checksum`).
        keys: the source's growing key list.
    """

    def __init__(self, path: Path, header: dict[str, Any], keys: list[str]) -> None:
        super().__init__(name="recorder", daemon=True)
        self._file = path.open("wb")
        self._queue: deque[dict[str, Any]] = deque()
        self._keys, self._n_keys = keys, 0
        self._frame({"kind": "header", **header})
        self._stopping = threading.Event()

    def arrival(self, arrival: Arrival) -> None:
        """Note an arrival; called by the loop."""
        self._queue.append(
            {
                "kind": "arrival",
                "t_s": arrival.t_s,
                "t_read_s": arrival.t_read_s,
                "t_us": arrival.batch.t_us,
                "unit": arrival.batch.unit,
                "count": arrival.batch.count,
            }
        )

    def window(self, k: int, window: TokenWindow) -> None:
        """Note beat k's tokens; called by the loop."""
        self._queue.append(
            {
                "kind": "beat",
                "beat": k,
                "row": window.unit,
                "t_rel": window.t_rel,
                "count": window.count,
            }
        )

    def run(self) -> None:
        """Write until told to stop."""
        while not self._stopping.wait(FLUSH_EVERY_S):
            self._write()
        self._write()
        self._file.close()

    def stop(self) -> None:
        """Write what is left and close the file."""
        self._stopping.set()
        self.join(timeout=5.0)

    def _write(self) -> None:
        for _ in range(len(self._queue)):
            record = self._queue.popleft()
            if len(self._keys) > self._n_keys:
                self._n_keys = len(self._keys)
                self._frame({"kind": "keys", "keys": self._keys[: self._n_keys]})
            self._frame({k: v.tobytes() if hasattr(v, "tobytes") else v for k, v in record.items()})
        self._file.flush()

    def _frame(self, record: dict[str, Any]) -> None:
        packed = msgspec.msgpack.encode(record)
        self._file.write(_LENGTH.pack(len(packed)) + packed)


def read_token_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a token log's records in order; a frame cut short by a crash ends it."""
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            packed = file.read(*_LENGTH.unpack(head))
            if len(packed) < _LENGTH.unpack(head)[0]:
                return
            yield msgspec.msgpack.decode(packed)
