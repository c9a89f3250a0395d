"""The flight recorder: times of the last beats, written down when one is missed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.wire.schema import Decode, Timing

KEPT_S = 30.0
DUMP_EVERY_S = 10.0
DUMPS_KEPT = 100
"""Files in a folder: 45 MB at 100 Hz."""
_BEAT = "-beat-"
FIELDS = (
    "beat", "t_window", "due_s", "cut_s", "tokens_s", "done_s", "sent_s", "out_s", "end_s",
    "lsl_age_s", "tokens", "token_cap", "queued", "late", "skipped",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Missed:
    """A dump that is due, and why."""

    beat: int
    records: list[tuple[Any, ...]]


class FlightRecorder:
    """One tuple a beat, for the last 30 s; owned by the loop's thread.

    Args:
        hop_s: between beats.
    """

    def __init__(self, hop_s: float) -> None:
        self._records: deque[tuple[Any, ...]] = deque(maxlen=max(1, round(KEPT_S / hop_s)))
        self._skipped = 0
        self._t_dump_s = float("-inf")
        self.dumps: deque[Missed] = deque(maxlen=4)

    def note(self, decode: Decode, timing: Timing, queued: int) -> None:
        """Note a beat once it is over; times are seconds since its window ended.

        Args:
            decode: as it was sent.
            timing: the same beat's.
            queued: arrivals that waited when it was over.
        """
        t_s, t_end_s = decode.t_window, timing.t_end
        skipped = decode.beats_skipped - self._skipped
        self._skipped = decode.beats_skipped
        self._records.append(
            (decode.beat, t_s, timing.t_due - t_s, timing.t_cut - t_s, timing.t_tokens - t_s,
             timing.t_done - t_s, timing.t_sent - t_s, timing.t_out - t_s, t_end_s - t_s,
             timing.lsl_age_s, decode.tokens, decode.token_cap, queued, decode.late, skipped)
        )  # fmt: skip
        if (decode.late or skipped) and t_end_s > self._t_dump_s + DUMP_EVERY_S:
            self._t_dump_s = t_end_s
            self.dumps.append(Missed(decode.beat, list(self._records)))


def write_dump(missed: Missed, folder: Path, run_id: str) -> Path:
    """Write a dump as JSON lines: a header, then one array a beat, oldest first.

    The newest `DUMPS_KEPT` of the folder stay: a machine that is late for weeks fills no disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_id}{_BEAT}{missed.beat}.jsonl"
    lines = [json.dumps({"run_id": run_id, "missed_beat": missed.beat, "fields": FIELDS})]
    lines += [json.dumps(record) for record in missed.records]
    path.write_text("\n".join(lines) + "\n")
    dumps = sorted(folder.glob(f"*{_BEAT}*.jsonl"), key=_t_changed_s)
    for old in dumps[:-DUMPS_KEPT]:
        old.unlink(missing_ok=True)
    return path


def _t_changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another daemon removed it
        return 0.0


def read_dump(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a dump's header and beats."""
    lines = path.read_text().splitlines()
    header: dict[str, Any] = json.loads(lines[0])
    return header, [
        dict(zip(header["fields"], json.loads(line), strict=True)) for line in lines[1:]
    ]


def causes(beats: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each missed beat and the step in which its time went, against the others' median."""
    usual = {name: _median([_steps(beat)[name] for beat in beats]) for name in _STEPS}
    for beat in beats:
        if not (beat["late"] or beat["skipped"]):
            continue
        steps = _steps(beat)
        worst = max(_STEPS, key=lambda name: steps[name] - usual[name])
        more_ms = 1e3 * (steps[worst] - usual[worst])
        yield beat, f"{_STEPS[worst]}: {more_ms:.1f} ms more than usual"


_STEPS = {
    "wake": "woken late (another program, or the interpreter, held the core)",
    "cut": "cutting the tokens",
    "infer": "the graph",
    "shape": "judging and shaping",
    "publish": "sending",
}


def _steps(beat: dict[str, Any]) -> dict[str, float]:
    return {
        "wake": beat["cut_s"] - beat["due_s"],
        "cut": beat["tokens_s"] - beat["cut_s"],
        "infer": beat["done_s"] - beat["tokens_s"],
        "shape": beat["sent_s"] - beat["done_s"],
        "publish": beat["out_s"] - beat["sent_s"],
    }


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
