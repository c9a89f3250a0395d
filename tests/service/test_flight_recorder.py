"""The flight recorder: what it keeps, when it dumps, and whom it blames."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from service.telemetry.flight_recorder import (
    DUMP_EVERY_S,
    DUMPS_KEPT,
    FIELDS,
    KEPT_S,
    FlightRecorder,
    Missed,
    causes,
    read_dump,
    write_dump,
)
from streams.wire.schema import Decode, Timing
from tests.service.beat_rig import HOP_S, SETTLE_S, BeatRig


@pytest.fixture
def decode(rig: BeatRig) -> Decode:
    return rig.fed_turn(1)


def flown(recorder: FlightRecorder, decode: Decode, k: int, **changes: float) -> None:
    """Note beat k, each of whose steps takes a millisecond but for what is said."""
    t_s = decode.t_window + k * HOP_S
    cut_s = SETTLE_S + changes.get("wake_s", 1e-3)
    tokens_s = cut_s + changes.get("cut_s", 1e-3)
    done_s = tokens_s + changes.get("infer_s", 1e-3)
    sent_s = done_s + changes.get("shape_s", 1e-3)
    out_s = sent_s + changes.get("publish_s", 1e-3)
    noted = msgspec.structs.replace(
        decode,
        beat=k,
        t_window=t_s,
        t_cut=t_s + cut_s,
        t_done=t_s + done_s,
        t_sent=t_s + sent_s,
        late=out_s > SETTLE_S + HOP_S / 2,
        beats_skipped=int(changes.get("skipped", 0)),
    )
    timing = Timing(
        run_id=noted.run_id,
        seq=noted.seq,
        beat=k,
        t_window=t_s,
        lsl_age_s=2e-3,
        t_arrival=t_s + SETTLE_S,
        t_due=t_s + SETTLE_S,
        cut_by="settled",
        t_cut=noted.t_cut,
        t_tokens=t_s + tokens_s,
        t_done=noted.t_done,
        run_s=1e-3,
        was_ahead=False,
        t_sent=noted.t_sent,
        t_out=t_s + out_s,
        t_end=t_s + out_s + 1e-4,
    )
    recorder.note(noted, timing, 0)


def test_beats_in_time_leave_no_dump(decode: Decode) -> None:
    recorder = FlightRecorder(HOP_S)
    for k in range(1, 50):
        flown(recorder, decode, k)
    assert not recorder.dumps


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("wake_s", "woken late"),
        ("cut_s", "cutting"),
        ("infer_s", "the graph"),
        ("shape_s", "shaping"),
        ("publish_s", "sending"),
    ],
)
def test_a_late_beat_is_dumped_and_its_step_is_named(
    decode: Decode, step: str, told: str, tmp_path: Path
) -> None:
    recorder = FlightRecorder(HOP_S)
    for k in range(1, 50):
        flown(recorder, decode, k)
    flown(recorder, decode, 50, **{step: 15e-3})
    (missed,) = recorder.dumps
    header, beats = read_dump(write_dump(missed, tmp_path / "new", "7f3a"))
    assert (header["run_id"], header["missed_beat"]) == ("7f3a", 50)
    assert [beat["beat"] for beat in beats] == list(range(1, 51))
    assert all(tuple(beat) == FIELDS for beat in beats)
    ((beat, cause),) = causes(beats)
    assert beat["beat"] == 50
    assert told in cause
    assert "14.0 ms more than usual" in cause


def test_a_skipped_beat_is_dumped_by_the_one_after_it(decode: Decode) -> None:
    recorder = FlightRecorder(HOP_S)
    flown(recorder, decode, 1)
    flown(recorder, decode, 4, skipped=2)
    assert [missed.beat for missed in recorder.dumps] == [4]
    flown(recorder, decode, 5, skipped=2)
    assert len(recorder.dumps) == 1


def test_dumps_keep_their_distance(decode: Decode) -> None:
    recorder = FlightRecorder(HOP_S)
    n_beats = round(2.5 * DUMP_EVERY_S / HOP_S)
    for k in range(1, n_beats):
        flown(recorder, decode, k, infer_s=15e-3)
    beats = [missed.beat for missed in recorder.dumps]
    assert len(beats) == 3
    assert min(b - a for a, b in pairwise(beats)) >= DUMP_EVERY_S / HOP_S


def test_it_keeps_half_a_minute(decode: Decode) -> None:
    recorder = FlightRecorder(HOP_S)
    n_kept = round(KEPT_S / HOP_S)
    for k in range(1, n_kept + 100):
        flown(recorder, decode, k)
    flown(recorder, decode, n_kept + 100, infer_s=15e-3)
    assert [record[0] for record in recorder.dumps[0].records] == list(range(101, n_kept + 101))


def test_a_folder_that_cannot_be_is_the_callers_matter(decode: Decode, tmp_path: Path) -> None:
    recorder = FlightRecorder(HOP_S)
    flown(recorder, decode, 1, infer_s=15e-3)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_dump(recorder.dumps[0], tmp_path / "file", "7f3a")


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    path.write_text(json.dumps({"fields": ["a", "b"]}) + "\n[1]\n")
    with pytest.raises(ValueError, match="shorter"):
        read_dump(path)


def test_dumps_of_a_machine_that_is_late_for_weeks_fill_no_disk(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("notes.jsonl", "a-beat-3.txt")]
    for other in others:
        other.write_text("somebody's")
    for beat in range(DUMPS_KEPT + 20):
        # Of two runs: the older one's go first, whatever their beats and names are.
        run_id = "f000" if beat < DUMPS_KEPT else "0000"
        path = write_dump(Missed(1000 - beat, []), tmp_path, run_id)
        os.utime(path, (beat, beat))
    left = {path.name for path in tmp_path.iterdir()} - {other.name for other in others}
    assert len(left) == DUMPS_KEPT
    assert all(other.exists() for other in others)
    newest = [1000 - beat for beat in range(20, DUMPS_KEPT + 20)]
    assert {int(name.split("-")[2].split(".")[0]) for name in left} == set(newest)
