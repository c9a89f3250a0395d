"""Find the streams to record, and look for one again that went away."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event, Thread

from streams.errors import StreamAbsentError, StreamAmbiguousError
from streams.lsl.inlets import Inlet, find_inlet

LOOK_FOR_S = 5.0
PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream to record; "" matches any name, source_id or host."""

    type: str
    name: str = ""
    source_id: str = ""
    hostname: str = ""
    budget_per_s: float = 50_000.0


def find_all(wanted: Sequence[Wanted], wait_s: float) -> list[Inlet]:
    """Find an inlet for each, all at the same time.

    Raises:
        StreamAbsentError, StreamAmbiguousError: a stream is not there, or there several times.
    """
    with ThreadPoolExecutor(len(wanted)) as together:
        return list(together.map(lambda one: _find(one, one.source_id, wait_s), wanted))


def layout_of_inlet(inlet: Inlet) -> tuple[object, ...]:
    """Return everything that must be the same if a stream is the one that went away."""
    what = inlet.description
    return (inlet.labels, what.n_channels, what.format, what.rate_hz)


class Search(Thread):
    """Looks for a stream until it is there, whatever its new `source_id`.

    Args:
        wanted: what was asked for.
        lost: the inlet that ended.

    Attributes:
        remarks: what is to be said, each once.
    """

    def __init__(self, wanted: Wanted, lost: Inlet) -> None:
        super().__init__(daemon=True, name=f"look for {lost.description.name}")
        self._wanted = replace(wanted, name=wanted.name or lost.description.name, source_id="")
        self._source_id = lost.description.source_id
        self._layout = layout_of_inlet(lost)
        self._is_to_end = Event()
        self._found: Inlet | None = None
        self.remarks: list[str] = []
        self._said: set[str] = set()
        self.start()

    def found(self) -> Inlet | None:
        """The stream, opened, once it is there again."""
        return self._found

    def end(self) -> None:
        """Stop looking."""
        self._is_to_end.set()

    def run(self) -> None:
        """Look."""
        while self._found is None and not self._is_to_end.is_set():
            try:
                inlet = self._look_once()
                if layout_of_inlet(inlet) == self._layout:
                    inlet.open()
                    self._found = inlet
                    return
                self._remark(
                    f"{inlet.description} is there, with other channels than before "
                    f"({', '.join(inlet.labels) or 'unnamed'}): it is not recorded"
                )
            except StreamAbsentError:
                continue
            except StreamAmbiguousError as err:
                self._remark(f"{err} None of them is recorded until one alone is there.")
            self._is_to_end.wait(PAUSE_S)

    def _look_once(self) -> Inlet:
        try:
            return _find(self._wanted, "", LOOK_FOR_S)
        except StreamAmbiguousError:
            if not self._source_id:
                raise
            return _find(self._wanted, self._source_id, LOOK_FOR_S)

    def _remark(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.remarks.append(text)


def _find(wanted: Wanted, source_id: str, wait_s: float) -> Inlet:
    return find_inlet(
        wanted.type,
        name=wanted.name,
        source_id=source_id,
        hostname=wanted.hostname,
        budget_per_s=wanted.budget_per_s,
        timeout_s=wait_s,
        recover=False,
    )
