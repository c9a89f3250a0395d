"""Read a recorded run: its parts in order, each checked, holes and damage told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import error as ZlibError

import msgspec

from service.errors import ServiceError
from service.telemetry.recording.frames import (
    CutShortError,
    DamagedError,
    parts_of,
    read_frames,
    read_head,
)
from service.telemetry.recording.records import Checkpoint, Header, Record, decode_record

FACTS: dict[str, type] = {
    "run_id": str, "follows": str, "began": str, "spikeloop": str, "t0_s": float, "hop_us": int,
    "bin_us": int, "ring_capacity": int, "source": str, "config": dict, "machine": object,
}  # fmt: skip
BIN_US_AT_MOST, CAPACITY_AT_MOST = 10**8, 10**8


class RecordingError(ServiceError):
    """A recorded run cannot be read."""


@dataclass(frozen=True, slots=True)
class Begins:
    """The record begins at the checkpoint that follows; `why` names the hole, "" at the start."""

    why: str


@dataclass(slots=True)
class RecordedRun:
    """A run's folder.

    Attributes:
        path: the folder.
        facts: what the header says of the run.
        remarks: what was found damaged, cut short or missing so far, a sentence each.
    """

    path: Path
    facts: dict[str, Any]
    remarks: list[str] = field(default_factory=list)

    def records(self) -> Iterator[Record | Begins]:
        """Yield what was recorded, in order.

        A part that is damaged is read up to the frame in question; the record goes on at the next
        part's checkpoint.
        """
        why, expected = "", (0, 1, 0)
        for path in parts_of(self.path):
            try:
                with path.open("rb") as file:
                    head = read_head(file)
                    if expected != (head.segment, head.part, head.first_frame) and not why:
                        why = _why(expected, head.segment, head.part)
                    frame = head.first_frame
                    is_begin = True
                    for held in read_frames(file, head.first_frame):
                        frame += 1
                        for one in held:
                            record = decode_record(one)
                            if isinstance(record, Checkpoint) and is_begin:
                                is_begin = False
                                if why or record.n_lost or head.part == 1:
                                    yield Begins(why or _lost(record))
                                why = ""
                            yield record
                expected = (head.segment, head.part + 1, frame)
            except CutShortError as err:
                why = f"{path.name}: {err}"
                self._remark(f"{why}: it was not ended in order, or is being written")
            except (OSError, DamagedError, ZlibError, msgspec.DecodeError) as err:
                told = err.strerror if isinstance(err, OSError) else err
                why = f"{path.name}: {told}"
                self._remark(f"{why}: the rest of this part is not used")

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


@contextmanager
def fitting_together(path: Path) -> Iterator[None]:
    """Say in a sentence that a run's records contradict one another.

    Checksums hold off accidents; a file that was made to mislead, or by another program, may still
    name units, decoders or sizes that there are not.

    Raises:
        RecordingError: they do.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as err:
        what = f"{type(err).__name__}: {err}"
        raise RecordingError(f"{path}: its records do not fit together ({what})") from err


def open_run(path: Path) -> RecordedRun:
    """Open a run's folder.

    Raises:
        RecordingError: it is none, or its first part cannot be read.
    """
    try:
        parts = parts_of(path)
    except OSError as err:
        raise RecordingError(f"no recorded run at {path}: {err.strerror}") from err
    if not parts:
        raise RecordingError(
            f"no recorded run at {path}: it holds no part-000001.rec; name the folder of one run, "
            "such as runs/recordings/20261128T140000Z-7f3a21bc"
        )
    problems = []
    for part in parts:
        try:
            with part.open("rb") as file:
                first = next(read_frames(file, read_head(file).first_frame), None)
            header = decode_record(first[0]) if first else None
            if isinstance(header, Header):
                return RecordedRun(path, _checked(header.facts))
            problems.append(f"{part.name}: it does not begin with a header")
        except (OSError, DamagedError, ZlibError, msgspec.DecodeError) as err:
            problems.append(f"{part.name}: {err}")
    told = "; ".join(problems) or "they hold nothing"
    raise RecordingError(f"the parts in {path} cannot be read: {told}")


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    for name, kind in FACTS.items():
        if not isinstance(facts.get(name), kind):
            raise DamagedError(f"its header does not say {name}")
    if not 0 < facts["hop_us"] <= facts["bin_us"] <= BIN_US_AT_MOST:
        raise DamagedError(
            f"a hop of {facts['hop_us']} us and a bin of {facts['bin_us']} cannot be"
        )
    if not 0 < facts["ring_capacity"] <= CAPACITY_AT_MOST:
        raise DamagedError(f"a ring of {facts['ring_capacity']} spikes cannot be")
    return facts


def _why(expected: tuple[int, int, int], segment: int, part: int) -> str:
    if expected == (0, 1, 0):
        return f"the parts before {part} were removed"
    if segment != expected[0]:
        return "the recorder was replaced"
    return f"parts {expected[1]} to {part - 1} are missing"


def _lost(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.n_lost} records were lost" if checkpoint.n_lost else ""
