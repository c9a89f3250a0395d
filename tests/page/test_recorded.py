"""A recorded run on the page: what a real daemon recorded, played, wound, and damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.page.inputs.run_tape import RunTape, Spikes
from service.page.inputs.wire import Heard
from service.page.push import Browsers
from service.page.recorded import LED_IN_S, RecordedInputs
from service.redecode.reading import RecordingError
from service.telemetry.recording.frames import frame_places, parts_of, read_head
from tests.recording.recorded import only_run
from tests.system.conftest import UNIT_KEYS, write_config
from tests.system.conftest import bundle as bundle
from tests.system.running import Daemon, keep_on, unique
from tests.system.sources import Living


class SetClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.t_s = 1000.0

    def now(self) -> float:
        return self.t_s

    def sleep_until(self, t_s: float) -> None:
        self.t_s = t_s

    def spin_until(self, t_s: float) -> None:
        self.t_s = t_s


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Daemon]:
    """A daemon that has run, was paused for a while, and has ended; its recording lies there."""
    folder = tmp_path_factory.mktemp("recorded")
    source = Living(unique("spikes"), UNIT_KEYS)
    record = {"enabled": True, "folder": str(folder / "recordings"), "part_mb": 0.1}
    started = Daemon(folder, write_config(folder, source.name, bundle, record=record))

    def go_on() -> None:
        source.send_due()
        started.listen()

    started.until_validity("ok", source.send_due)
    keep_on(1.5, go_on)
    started.ask("pause")
    keep_on(1.0, go_on)
    started.ask("resume")
    keep_on(1.0, go_on)
    assert started.end() == 0
    yield started
    started.kill()
    source.close()


@pytest.fixture(scope="module")
def run(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = json.loads(json.dumps(daemon.announced))
    assert facts
    folders = sorted(Path(tmp_path_factory.getbasetemp()).glob("recorded*/recordings"))
    return only_run(folders[-1])


def decodes_of(tape: RunTape, from_s: float) -> list[dict]:
    items = tape.items(from_s)
    return [i.message for i in items if isinstance(i, Heard) and i.topic == "decode"]


def test_the_tape_holds_every_decode_as_it_left(run: Path, daemon: Daemon) -> None:
    tape = RunTape(run)
    held = {decode["seq"]: decode for decode in decodes_of(tape, tape.begin_s)}
    assert len(held) == daemon.heard.decodes[-1]["seq"]
    for decode in daemon.heard.decodes:
        assert held[decode["seq"]] == decode


def test_the_tape_holds_the_spikes_that_were_admitted(run: Path) -> None:
    tape = RunTape(run)
    spikes = [item for item in tape.items(tape.begin_s) if isinstance(item, Spikes)]
    first, *_, last = decodes_of(tape, tape.begin_s)
    # The record begins with the first beat's end: what was decided before is not in it.
    n_decided = last["spikes_in"] - first["spikes_in"]
    assert sum(int(one.count.sum()) for one in spikes) >= n_decided > 0
    assert tape.keys == list(UNIT_KEYS)
    for one in spikes:
        assert (one.t_s - one.stamps_s > -0.01).all()
        assert one.unit.max(initial=0) < len(tape.keys)


def test_any_moment_is_found_without_reading_from_the_beginning(run: Path) -> None:
    tape = RunTape(run)
    whole = list(tape.items(tape.begin_s))
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        from_s = tape.begin_s + share * (tape.end_s - tape.begin_s)
        wanted = [one.t_s for one in whole if one.t_s >= from_s]
        assert [one.t_s for one in tape.items(from_s)] == wanted


def test_the_time_bar_shows_validity(run: Path) -> None:
    tape = RunTape(run)
    validities = tape.validities(50)
    assert {"ok", "paused"} <= set(validities)
    assert validities.index("ok") < validities.index("paused")


def test_the_page_shows_of_a_recording_what_it_shows_live(run: Path, daemon: Daemon) -> None:
    clock = SetClock()
    inputs = RecordedInputs(run, None, clock)
    seconds = inputs.recorded()["length_s"]
    clock.t_s += seconds - 0.5
    now_s = inputs.drain()
    fast, slow = inputs.room.tick(now_s), inputs.room.slow(now_s)
    assert fast["validity"] == "ok"
    assert slow["validity"]["decoder"] == "tiny"
    assert slow["spikes"]["fates"]["used"] > 0
    assert slow["decoded"]["outputs"][0][0] == "velocity"
    events = [event["event"] for event in slow["events"]["events"]]
    assert "paused" in events
    assert "resumed" in events
    assert inputs.recorded()["at_s"] == pytest.approx(seconds - 0.5, abs=0.05)


def test_it_is_stopped_sped_up_and_wound(run: Path) -> None:
    clock = SetClock()
    inputs = RecordedInputs(run, None, clock)
    inputs.obey({"speed": 2.0})
    clock.t_s += 0.5
    inputs.drain()
    assert inputs.recorded()["at_s"] == pytest.approx(1.0, abs=0.02)
    inputs.obey({"is_playing": False})
    clock.t_s += 10.0
    inputs.drain()
    assert inputs.recorded()["at_s"] == pytest.approx(1.0, abs=0.02)
    before = inputs.room
    inputs.obey({"wind_to_s": 0.3})
    assert inputs.room is not before
    assert inputs.recorded()["at_s"] == pytest.approx(0.3, abs=0.02)
    clock.t_s += 1.0
    assert inputs.drain() == pytest.approx(inputs.room.raster.head * 0.01, abs=0.1)


def test_what_is_no_wish_of_the_time_bar_is_left_alone(run: Path) -> None:
    inputs = RecordedInputs(run, None, SetClock())
    before = inputs.recorded()
    for said in (
        {"wind_to_s": "x"},
        {"wind_to_s": float("nan")},
        {"speed": 1e9},
        {"is_playing": 1},
        {"a": []},
    ):
        inputs.obey(said)
    assert inputs.recorded() == before
    inputs.obey({"wind_to_s": 1e12})
    assert inputs.recorded()["at_s"] == before["length_s"]


def test_it_stops_at_the_end_and_begins_anew_when_played(run: Path) -> None:
    clock = SetClock()
    inputs = RecordedInputs(run, None, clock)
    clock.t_s += 1e6
    inputs.drain()
    assert not inputs.recorded()["is_playing"]
    inputs.obey({"is_playing": True})
    assert inputs.recorded()["at_s"] == 0.0


# Of a frame: where its mark, number, length, checksum and content begin.
@pytest.mark.parametrize("at", [0, 4, 8, 12, 16])
def test_a_damaged_part_is_told_and_the_rest_is_shown(run: Path, tmp_path: Path, at: int) -> None:
    broken = tmp_path / run.name
    broken.mkdir()
    parts = parts_of(run)
    for part in parts:
        (broken / part.name).write_bytes(part.read_bytes())
    with parts[0].open("rb") as file:
        places = [place for place, _ in frame_places(file, read_head(file).first_frame)]
    held = bytearray((broken / parts[0].name).read_bytes())
    held[places[len(places) // 2] + at] ^= 1
    (broken / parts[0].name).write_bytes(bytes(held))
    tape, whole = RunTape(broken), RunTape(run)
    n, n_whole = (len(decodes_of(one, one.begin_s)) for one in (tape, whole))
    assert 0 < n < n_whole
    assert any(parts[0].name in remark for remark in tape.remarks)


def test_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recorded run"):
        RunTape(tmp_path / "nowhere")


def test_what_is_fed_before_a_moment_fills_what_looks_back(run: Path) -> None:
    clock = SetClock()
    inputs = RecordedInputs(run, None, clock)
    inputs.obey({"is_playing": False, "wind_to_s": 3.0})
    assert LED_IN_S > 3.0
    slow = inputs.room.slow(inputs.drain())
    assert slow["spikes"]["rate"]
    assert np.array(inputs.room.units.rates_hz()).shape == (len(UNIT_KEYS),)


def test_after_winding_the_timeline_and_the_traces_hold_what_led_up_to_it(run: Path) -> None:
    clock = SetClock()
    inputs = RecordedInputs(run, None, clock)
    browser, browsers = Reading(), Browsers(inputs)
    browsers.connected.add(browser)
    browsers.push(inputs.drain())
    browser.heard.clear()
    inputs.wind(inputs.recorded()["length_s"] - 0.5)
    for _ in range(4):
        browsers.push(inputs.drain())
        clock.t_s += 0.03
    kinds = [one["kind"] for one in browser.heard]
    assert kinds[0] == "anew"
    first = next(one for one in browser.heard if one["kind"] == "fast")
    assert first["decoded"][0][0] < -1.0
    slow = next(one for one in browser.heard if one["kind"] == "slow")
    assert {"ok", "paused"} <= {validity for *_, validity in slow["events"]["stretches"]}


class Reading:
    """A browser that takes one message in between two pictures."""

    def __init__(self) -> None:
        self.order, self.next_column, self.version = "channel", 0, -1
        self.heard: list[dict] = []
        self._n_seen = 0

    @property
    def is_behind(self) -> bool:
        is_behind, self._n_seen = len(self.heard) > self._n_seen, len(self.heard)
        return is_behind

    def send(self, payload: bytes, *, binary: bool = False) -> None:
        if not binary:
            self.heard.append(json.loads(payload))

    def close(self) -> None:
        pass
