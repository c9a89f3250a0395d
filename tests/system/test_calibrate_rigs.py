"""The wizard on rigs of other people: other clocks, labels, markers, and a stream made anew."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streams.lsl.inlets import lsl_now
from tests.system.calibrating import until_done, write_config
from tests.system.rigs import Rig
from tests.system.running import Process, keep_on, unique, wait_until

FOLDER = "day"
AWAY_S = 3.0
DEVICE_BEGAN_S = lsl_now() - (300.0 if lsl_now() > 400.0 else 900.0)
SHORT = {"learn_s": 9.0, "verify_s": 3.0, "fewest_trials": 6, "most_s": 40.0, "patience_s": 12.0}


def unix_ms(t_s: float) -> float:
    return (time.time() - lsl_now() + t_s) * 1e3


@dataclass(frozen=True)
class Odd:
    """A rig, the config for it, and what the preflight says of it."""

    rig: dict[str, Any]
    says: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=dict)


ODD = {
    "spikes in Unix time": Odd(
        {"spikes": lambda t_s: time.time() - lsl_now() + t_s},
        ("not of LSL's clock", "s ahead of it (they look like Unix time)"),
    ),
    "spikes of a device that began 300 s ago": Odd(
        {"spikes": lambda t_s: t_s - DEVICE_BEGAN_S}, ("not of LSL's clock", "type Spikes")
    ),
    "positions 300 s behind": Odd(
        {"position": lambda t_s: t_s - 300.0},
        ("not of LSL's clock", "300.0", "s behind it", "type Position"),
    ),
    "markers in Unix milliseconds": Odd(
        {"markers": unix_ms}, ("not of LSL's clock", "Unix time in milliseconds", "type Markers")
    ),
    "channels that cannot be told": Odd(
        {"labels": ("left", "right")}, ("'left', 'right'", '`channels = ["left", "right"]`')
    ),
    "another host": Odd({}, ("hostname='nowhere'",), {"markers": {"hostname": "nowhere"}}),
}


def config_of(folder: Path, rig: Rig, **sections: dict[str, Any]) -> Path:
    named = {
        "spikes": {"name": rig.name_},
        "markers": {"name": f"{rig.name_}-m"},
        "behavior": {"name": f"{rig.name_}-c"},
        "collect": SHORT,
    }
    both = {name: named.get(name, {}) | sections.get(name, {}) for name in {*named, *sections}}
    return write_config(folder, rig.name_, "shipped:demo", **both)


def calibrate(folder: Path, config: Path) -> Process:
    where = str(folder / FOLDER)
    return Process(folder, "calibrate", str(config), "--auto", "--json", "--folder", where)


@pytest.fixture(scope="module")
def wizards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """A wizard on each odd rig, all at once; they have ended."""
    rigs, started = [], {}
    for name, odd in ODD.items():
        folder = tmp_path_factory.mktemp("odd")
        rigs.append(Rig(unique("rig"), **odd.rig))
        rigs[-1].start()
        started[name] = calibrate(folder, config_of(folder, rigs[-1], **odd.config))
    for wizard in started.values():
        wizard.code()
    yield started
    for rig in rigs:
        rig.close()


@pytest.mark.parametrize("name", ODD)
def test_the_preflight_says_what_is_odd(wizards: dict[str, Process], name: str) -> None:
    wizard = wizards[name]
    assert wizard.code() == 3, wizard.err
    error = json.loads(wizard.out)["error"]
    for text in ODD[name].says:
        assert text in error
    assert "Traceback" not in wizard.err


def test_a_clock_that_is_not_lsls_by_arrival(tmp_path: Path) -> None:
    rig = Rig(unique("rig"), spikes=unix_ms)
    rig.start()
    wizard = calibrate(tmp_path, config_of(tmp_path, rig, spikes={"stamps": "arrival"}))
    try:
        until_done(tmp_path / FOLDER / "progress.json", "preflight", lambda: wizard.is_alive)
        assert wizard.is_alive
    finally:
        wizard.kill()
        rig.close()


class Jumping:
    """Stamps that leave LSL's clock once they are told to."""

    def __init__(self, by_s: float) -> None:
        self._by_s, self.is_off = by_s, False

    def __call__(self, t_s: float) -> float:
        return t_s + (self._by_s if self.is_off else 0.0)


@pytest.mark.long
def test_stamps_that_leave_the_clock_while_collecting_end_it(tmp_path: Path) -> None:
    days = []
    for by_s in (300.0, 86_400.0):
        stamps, folder = Jumping(by_s), tmp_path / f"{by_s:.0f}"
        folder.mkdir()
        rig = Rig(unique("rig"), spikes=stamps)
        rig.start()
        first = folder / FOLDER / "collect-1.xdf"
        config = config_of(folder, rig, collect={"learn_s": 80.0, "most_s": 100.0})
        days.append((stamps, rig, first, calibrate(folder, config)))
    try:
        for stamps, _, first, _ in days:
            wait_until(lambda path=first: path.exists() and path.stat().st_size > 60_000)  # type: ignore[misc]
            stamps.is_off = True
        for _, _, _, wizard in days:
            wizard.code()
    finally:
        for _, rig, _, wizard in days:
            wizard.kill()
            rig.close()
    for _, _, _, wizard in days:
        assert wizard.code() == 3, wizard.err
        assert "bear stamps of another clock" in json.loads(wizard.out)["error"]
        assert "Traceback" not in wizard.err


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Labels in capitals with blanks, and markers that are numbers."""
    made = Rig(unique("rig"), labels=("Cursor X", "Cursor Y"), marker_format="int32")
    made.start()
    yield made
    made.close()


@pytest.mark.long
def test_a_stream_made_anew_while_collecting_is_said_and_its_trials_not_used(
    rig: Rig, tmp_path: Path
) -> None:
    marked = {"trial_start": "1", "trial_stop": "2"}
    wizard = calibrate(tmp_path, config_of(tmp_path, rig, markers=marked))
    try:
        first = tmp_path / FOLDER / "collect-1.xdf"
        wait_until(lambda: first.exists() and first.stat().st_size > 60_000)
        rig.take_spikes_away()
        keep_on(AWAY_S, lambda: None)
        rig.bring_spikes_back(unique("another"))
        until_done(tmp_path / FOLDER / "progress.json", "collect", lambda: wizard.is_alive)
    finally:
        wizard.signal(signal.SIGKILL)
        wizard.kill()
    progress = json.loads((tmp_path / FOLDER / "progress.json").read_text())
    said = " ".join(progress["steps"]["collect"]["left_out"])
    assert "was away from" in said
    assert "no spikes from" in said
    assert "trials are not used" in said
    assert progress["steps"]["collect"]["trials"] >= SHORT["fewest_trials"]
    assert "was away from" in wizard.err
