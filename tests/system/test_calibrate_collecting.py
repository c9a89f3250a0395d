"""Decoders made while trials are collected: real streams, recorder, wizard and its processes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.adaptation.adapt import adapt
from calibration.prequential.sequence import PredictThenLearn, Schedule
from calibration.prequential.traces import Traces, load
from calibration.wizard.config import load_config
from calibration.wizard.learner import options_of
from export.bundle import open_bundle
from streams.sessions.reading import read_session
from tests.system.calibrating import Lab, Terminal, make_base, until_done, write_config
from tests.system.conftest import DaemonStarter
from tests.system.running import Process, unique, wait_until

KEYS = tuple(f"ch{i}/u1" for i in range(1, 25))
FOLDER = "day"
MOST_S = 60.0
Run = Callable[..., Process]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yesterday's decoder of the lab's units."""
    return make_base(tmp_path_factory.mktemp("base"), KEYS)


@dataclass(frozen=True)
class Morning:
    """A calibration that has ended.

    Attributes:
        folder: its files.
        config: of the wizard.
        told: its JSON.
        steps: results.
    """

    folder: Path
    config: Path
    told: dict[str, Any]
    steps: dict[str, Any]

    @property
    def traces(self) -> Traces:
        """Scored while collecting."""
        return load(self.folder / "verify.npz")


def started_lab(ending: ExitStack, **options: Any) -> Lab:
    made = Lab(unique("lab"), KEYS, **options)
    made.start()
    ending.callback(made.close)
    return made


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory in which all is well."""
    with ExitStack() as ending:
        yield started_lab(ending)


def arguments_of(config: Path, folder: Path) -> tuple[str, ...]:
    return ("calibrate", str(config), "--auto", "--json", "--folder", str(folder))


def morning_of(config: Path, folder: Path, wizard: Process) -> Morning:
    assert wizard.code() == 0, wizard.err
    steps = json.loads((folder / "progress.json").read_text())["steps"]
    return Morning(folder, config, json.loads(wizard.out), steps)


@pytest.fixture(scope="module")
def morning(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Morning:
    """One that ends by itself."""
    folder = tmp_path_factory.mktemp("morning")
    with ExitStack() as ending:
        lab = started_lab(ending)
        config = write_config(folder, lab.name_, base, collect={"most_s": MOST_S})
        wizard = Process(folder, *arguments_of(config, folder / FOLDER))
        ending.callback(wizard.kill)
        wizard.code()
    return morning_of(config, folder / FOLDER, wizard)


def test_it_ends_by_itself_once_more_would_gain_little(morning: Morning) -> None:
    collected = morning.steps["collect"]
    assert collected["seconds"] < MOST_S - 20.0
    assert collected["more_helps"] is False
    assert collected["decoders"] > 3
    assert collected["expected_gain"] < 1.0
    assert collected["test"] == ""
    assert morning.steps["adapt"]["n_steps"] == 0
    assert morning.steps["adapt"]["seconds"] > 0.8 * collected["seconds"]
    assert morning.told["decided"] == "accept"


def test_its_score_is_what_the_recording_gives_again(morning: Morning) -> None:
    config = load_config(morning.config)
    sequence = PredictThenLearn(
        open_bundle(Path(config.calibration.base)),
        options_of(config),
        Schedule(config.learn.first_s, config.learn.every_s),
    )
    sequence.update(read_session(Path(morning.steps["collect"]["session"])), is_over=True)
    again, live = sequence.traces, morning.traces
    assert again is not None
    np.testing.assert_allclose(again.t_s, live.t_s)
    np.testing.assert_allclose(again.learnt_s, live.learnt_s, atol=1e-6)
    for name, values in live.decodes.items():
        np.testing.assert_allclose(again.decodes[name], values, rtol=1e-3, atol=1e-3)
    assert sequence.n_made == morning.steps["collect"]["decoders"]


def test_the_score_goes_with_the_decoder(morning: Morning) -> None:
    verified = morning.steps["verify"]
    assert verified["test"] == ""
    assert set(verified["decoders"]) == {"today", "yesterday", "wiener", "shuffled"}
    made = open_bundle(Path(morning.told["bundle"])).manifest
    assert made.verification is not None
    r2 = verified["decoders"]["today"]["r2"]
    np.testing.assert_allclose(made.verification.r2["velocity"], r2)
    assert made.verification.n_trials == verified["n_blocks"]
    page = (morning.folder / "calibration.html").read_text()
    assert "by the decoder that was made before it" in page


def test_never_enough_goes_on_to_the_limit(lab: Lab, base: Path, run: Run, tmp_path: Path) -> None:
    learn, collect = {"least_gain": 0.0}, {"most_s": 18.0}
    config = write_config(tmp_path, lab.name_, base, learn=learn, collect=collect)
    wizard = run(*arguments_of(config, tmp_path / FOLDER))
    collected = morning_of(config, tmp_path / FOLDER, wizard).steps["collect"]
    assert collected["seconds"] > 16.0
    assert collected["more_helps"] is True


@pytest.mark.long
def test_a_wizard_killed_while_collecting_goes_on_with_the_sequence(
    lab: Lab, base: Path, run: Run, tmp_path: Path
) -> None:
    config = write_config(tmp_path, lab.name_, base)
    arguments, folder = arguments_of(config, tmp_path / FOLDER), tmp_path / FOLDER
    first = run(*arguments)
    path = folder / "collect-1.xdf"
    wait_until(lambda: "10 s" in first.err or not first.is_alive)
    assert path.exists()
    first.signal(signal.SIGKILL)
    first.code()
    resumed = run(*arguments, "--resume")
    until_done(folder / "progress.json", "collect", lambda: True)
    resumed.signal(signal.SIGKILL)
    resumed.code()
    last = run(*arguments, "--resume")
    morning = morning_of(config, folder, last)
    collected = morning.steps["collect"]
    assert collected["recordings"] == ["collect-1.xdf", "collect-2.xdf"]
    assert morning.traces.learnt_s[0] < 8.0
    manifest = json.loads((Path(morning.told["bundle"]) / "manifest.json").read_text())
    again = adapt(
        base,
        Path(collected["session"]),
        out=tmp_path / Path(morning.told["bundle"]).name,
        seconds=1e6,
        same_array=True,
        gradient=False,
        test=None,
        verification=manifest["verification"],
        facts={"pace": manifest["training"]["pace"]},
    )
    assert again["checksum"] == morning.told["checksum"]


@pytest.mark.long
def test_one_screen_through_a_terminal(
    lab: Lab, base: Path, serve: DaemonStarter, tmp_path: Path
) -> None:
    daemon = serve(lab.name_, base)
    daemon.until_validity("ok")
    config = write_config(tmp_path, lab.name_, base, deploy={"control": daemon.control})
    seat = Terminal("calibrate", str(config), "--folder", str(tmp_path / FOLDER))
    try:
        seat.until("go on")
        seat.press("\r")
        seat.until("made, the newest of")
        seat.until("units shuffled")
        shown = seat.until("enough: finish when it suits you")
        assert "30 s more" in shown
        seat.press("f")
        seat.until("opens in any browser")
        seat.press("b")
        seat.until("Add to them, or leave them aside")
        seat.press("a")
        seat.until("opens in any browser")
        seat.press("\r")
        seat.until("accept: put it in service")
        seat.press("a")
        seat.until("confirm: keep it")
        seat.press("c")
        assert seat.code() == 0
    finally:
        seat.kill()
    steps = json.loads((tmp_path / FOLDER / "progress.json").read_text())["steps"]
    assert daemon.ask("status").result["checksum"] == steps["adapt"]["checksum"]


def test_the_held_out_block_is_there_for_those_who_want_it(
    lab: Lab, base: Path, run: Run, tmp_path: Path
) -> None:
    config = write_config(tmp_path, lab.name_, base, learn={"hold_out": True})
    wizard = run(*arguments_of(config, tmp_path / FOLDER))
    steps = morning_of(config, tmp_path / FOLDER, wizard).steps
    assert steps["verify"]["test"] == steps["collect"]["test"] != ""
    assert steps["adapt"]["n_steps"] == 0
    assert steps["adapt"]["seconds"] < steps["collect"]["seconds"] - 2.0
