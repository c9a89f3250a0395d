"""What can be read of a recording that is damaged, cut short or changed, and what is said of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.errors import ExportError
from service.errors import ServiceError
from service.loop.intake.arrivals import Arrival
from service.redecode.comparison import redecode
from service.redecode.reading import RecordedRun, RecordingError, open_run
from service.redecode.session import session_of_run
from service.telemetry.recording import records
from service.telemetry.recording.frames import (
    PartHead,
    frame,
    part_name,
    parts_of,
    read_frames,
    read_head,
)
from service.telemetry.recording.frames import record as packed
from service.telemetry.recording.records import decode_record, encode_record
from streams.errors import StreamsError
from streams.messages import SpikeBatch
from tests.fuzz.sentences import check_refusal
from tests.recording.conftest import Recorded
from tests.recording.recorded import redecoded

ANY_INT64 = st.integers(-(2**62), 2**62)


@pytest.fixture
def copy(recorded: Recorded, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    path = tmp_path / recorded.path.name
    shutil.copytree(recorded.path, path)
    return path


def flip(path: Path, at: int) -> None:
    held = bytearray(path.read_bytes())
    held[at] ^= 1 << (at % 8)
    path.write_bytes(held)


def test_the_run_is_whole(recorded: Recorded) -> None:
    report = redecoded(recorded.path)
    assert report["remarks"] == []
    assert report["decodes"] == report["compared"] == recorded.heard.decodes[-1]["seq"]
    assert report["checkpoints"] == len(parts_of(recorded.path)) - 1 >= 3
    assert report["other_checkpoints"] == report["differing"] == report["other_values"] == 0


def test_files_are_the_owner_s_alone(recorded: Recorded) -> None:
    for path in (recorded.path, recorded.path.parent):
        assert path.stat().st_mode & 0o777 == 0o700
    for part in parts_of(recorded.path):
        assert part.stat().st_mode & 0o777 == 0o600


def test_a_last_part_that_is_cut_short_is_read_up_to_its_last_frame(copy: Path) -> None:
    whole = redecoded(copy)
    last = parts_of(copy)[-1]
    os.truncate(last, last.stat().st_size - 7)
    report = redecoded(copy)
    assert report["differing"] == 0
    assert 0 < whole["decodes"] - report["decodes"] < 50
    (remark,) = report["remarks"]
    assert remark.startswith(f"{last.name}: it ends within frame")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_flipped_bit_ends_the_part_and_the_next_one_begins_anew(copy: Path, share: float) -> None:
    whole = redecoded(copy)
    second = parts_of(copy)[1]
    flip(second, round(share * second.stat().st_size))
    report = redecoded(copy)
    assert report["differing"] == report["other_values"] == report["other_tokens"] == 0
    assert 0 < report["compared"] < whole["compared"]
    (remark,) = report["remarks"]
    assert remark.startswith(f"{second.name}: ")
    assert "the rest of this part is not used" in remark


def test_any_flipped_bit_is_noticed(copy: Path) -> None:
    part = parts_of(copy)[0]
    held = part.read_bytes()
    for at in range(0, len(held), max(1, len(held) // 97)):
        part.write_bytes(held)
        flip(part, at)
        run = open_run(copy)
        for _ in run.records():
            pass
        assert run.remarks, f"byte {at}"


def test_a_run_whose_first_parts_were_removed_begins_at_a_checkpoint(copy: Path) -> None:
    for part in parts_of(copy)[:2]:
        part.unlink()
    report = redecoded(copy)
    assert report["differing"] == report["other_values"] == 0
    assert report["not_compared"] == {}
    assert report["compared"] == report["decodes"] > 0


def test_a_part_that_is_removed_while_the_run_is_read_is_a_hole(tmp_path: Path) -> None:
    for i in (1, 2, 3):
        held = packed(encode_record(records.Closed(i)))
        part = PartHead(0, i, i - 1, "0000000a").packed() + frame(i - 1, held)
        (tmp_path / part_name(i)).write_bytes(part)
    run = RecordedRun(tmp_path, {})
    reading = run.records()
    assert next(reading) == records.Closed(1)
    (tmp_path / part_name(2)).unlink()  # as a daemon does that keeps its limit
    assert list(reading) == [records.Closed(3)]
    (remark,) = run.remarks
    assert remark.startswith("part-000002.rec: No such file")


def test_a_changed_spike_is_a_decode_that_differs(copy: Path) -> None:
    """Rewritten with good checksums: what is compared is the decode, not the file."""
    part = parts_of(copy)[0]
    with part.open("rb") as file:
        head = read_head(file)
        frames = [*read_frames(file, head.first_frame)]
    changed = 0
    with part.open("wb") as file:
        file.write(head.packed())
        for number, held in enumerate(frames, head.first_frame):
            out = b""
            for one in held:
                record = decode_record(one)
                if isinstance(record, records.Arrived) and record.unit and not changed:
                    changed, unit = 1, np.frombuffer(record.unit, np.int32)
                    one = encode_record(
                        msgspec.structs.replace(record, unit=((unit + 1) % 8).tobytes())
                    )
                out += packed(one)
            file.write(frame(number, out))
    report = redecoded(copy, code=8)
    assert report["differing"] > 0
    assert report["other_tokens"] > 0
    assert report["first_differing"]


def rewritten(part: Path, i_record: int, at: int, byte: int) -> None:
    """Change a byte of a record, with good checksums: no accident, somebody's work."""
    with part.open("rb") as file:
        head = read_head(file)
        frames = [*read_frames(file, head.first_frame)]
    n = sum(map(len, frames))
    i_record, i = i_record % n, 0
    with part.open("wb") as file:
        file.write(head.packed())
        for number, held in enumerate(frames, head.first_frame):
            out = b""
            for one in held:
                changed = bytearray(one)
                if i == i_record:
                    changed[at % len(changed)] = byte
                out += packed(bytes(changed))
                i += 1
            file.write(frame(number, out))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    i_record=st.one_of(st.integers(0, 5), st.integers(0, 10**6)),
    at=st.one_of(st.integers(0, 12), st.integers(0, 10**6)),
    byte=st.integers(0, 255),
)
def test_a_record_that_was_forged_ends_in_a_sentence(
    copy: Path, i_record: int, at: int, byte: int
) -> None:
    part = parts_of(copy)[0]
    before = part.read_bytes()
    rewritten(part, i_record, at, byte)
    for use in (lambda: redecode(copy, []), lambda: session_of_run(copy, None)):
        check_refusal(use, ServiceError, ExportError, StreamsError)
    part.write_bytes(before)


def test_a_bundle_that_was_moved_is_found_by_its_checksum(
    copy: Path, bundle: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "deep"
    shutil.copytree(bundle, elsewhere / "moved")
    hidden = bundle.with_name("hidden")
    bundle.rename(hidden)
    try:
        report = redecoded(copy, code=8)
        assert report["compared"] == 0
        assert report["not_compared"] == {"its decoder cannot be opened": report["decodes"]}
        assert "--bundles" in report["remarks"][0]
        assert redecoded(copy, "--bundles", str(tmp_path / "elsewhere"))["compared"] > 0
    finally:
        hidden.rename(bundle)


@pytest.mark.parametrize("content", [None, b"", b"no recording at all" * 10])
def test_what_is_no_recording_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "part-000001.rec").write_bytes(content)
    with pytest.raises(RecordingError, match=r"no recorded run|cannot be read"):
        open_run(tmp_path)


def test_the_recorder_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "import service.telemetry.recording.recorder_process as r; "
        "print([m for m in sys.modules if m.startswith(('numpy', 'msgspec', 'zmq', 'torch'))])"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-I", "-S", "-c", code, root]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(
    t_us=st.lists(ANY_INT64, max_size=20),
    unit=st.integers(0, 2**31 - 1),
    count=st.integers(1, 5),
    repeats=st.sampled_from(["all", "older", "none"]),
)
def test_an_arrival_is_recorded_bit_for_bit(
    t_us: list[int], unit: int, count: int, repeats: str
) -> None:
    n = len(t_us)
    batch = SpikeBatch(
        np.array(t_us, np.int64), np.full(n, unit, np.int32), np.full(n, count, np.int32)
    )
    arrival = Arrival(1.0, 2.0, batch, 7, None, np.zeros(0, np.int64), repeats=repeats)  # type: ignore[arg-type]
    again = decode_record(encode_record(records.arrived(arrival)))
    assert isinstance(again, records.Arrived)
    found = again.batch(unit + 1)
    if n:
        with pytest.raises(ValueError, match="none of"):
            again.batch(unit)
    for ours, theirs in ((found.t_us, batch.t_us), (found.unit, batch.unit)):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()
    assert found.count.tolist() == batch.count.tolist()
    assert (again.t_s, again.t_read_s, again.latest_us, again.repeats) == (1.0, 2.0, 7, repeats)
