"""The token log: every arrival and every beat's tokens, so that any decode can be made again.

A file of frames, each a little-endian uint32 length and that many bytes of MessagePack: first a
`header`, then `keys` whenever the source showed new units, `arrival` and `beat`. Arrays are raw
little-endian bytes.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from service.loop.intake.arrivals import Arrival
from streams.messages import TokenWindow

_LENGTH = struct.Struct("<I")
FLUSH_EVERY_S = 0.2
MOST_WAITING = 20_000
"""Records that may wait: two minutes at 50 Hz with a block of spikes a beat."""
Report = Callable[[str, dict[str, Any]], None]


class TokenLog(threading.Thread):
    """Appends records from the loop, in its own thread.

    Args:
        path: file to write; replaced if it is there.
        header: the run's (`run_id`, `t0_s`, `hop_us`, `bin_us`, `checksum`).
        keys: the source's growing key list.
        report: called with (event, detail) once it fails.

    Attributes:
        failure: why nothing is written any more; "" while all is well.
    """

    def __init__(self, path: Path, header: dict[str, Any], keys: list[str], report: Report) -> None:
        super().__init__(name="recorder", daemon=True)
        self.failure = ""
        self._path, self._report = path, report
        self._file = path.open("wb")
        self._queue: deque[dict[str, Any]] = deque()
        self._keys, self._n_keys = keys, 0
        self._frame({"kind": "header", **header})
        self._stopping = threading.Event()

    def arrival(self, arrival: Arrival) -> None:
        """Note an arrival; called by the loop."""
        self._put(
            {
                "kind": "arrival",
                "t_s": arrival.t_s,
                "t_read_s": arrival.t_read_s,
                "t_us": arrival.batch.t_us,
                "unit": arrival.batch.unit,
                "count": arrival.batch.count,
            }
        )

    def window(self, k: int, end_us: int, window: TokenWindow) -> None:
        """Note beat k's tokens, and its bin's end; called by the loop."""
        self._put(
            {
                "kind": "beat",
                "beat": k,
                "end_us": end_us,
                "row": window.unit,
                "t_rel": window.t_rel,
                "count": window.count,
            }
        )

    def run(self) -> None:
        """Write until told to stop."""
        try:
            while not self._stopping.wait(FLUSH_EVERY_S):
                self._write()
            self._write()
        except OSError as err:
            self._fail(err.strerror or str(err))
        with contextlib.suppress(OSError):
            self._file.close()

    def stop(self) -> None:
        """Write what is left and close the file."""
        self._stopping.set()
        self.join(timeout=5.0)

    def _put(self, record: dict[str, Any]) -> None:
        if self.failure:
            return
        if len(self._queue) >= MOST_WAITING:
            self._fail("the disk is too slow")
            return
        self._queue.append(record)

    def _fail(self, why: str) -> None:
        # A log with a hole would be taken for whole: it ends here.
        self.failure = why
        self._queue.clear()
        warning = f"the token log {self._path} ends here: {why}"
        self._report("token_log_ended", {"warning": warning})

    def _write(self) -> None:
        while self._queue and not self.failure:
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
