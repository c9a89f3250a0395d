"""The wizard's parts: channels, balance, learning curve, thresholds, progress, config, figures."""

from __future__ import annotations

import base64
import json
import multiprocessing
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from calibration.choices import TargetSpec
from calibration.errors import WizardError
from calibration.wizard.behavior import count_trials
from calibration.wizard.behavior import test_part as held_out
from calibration.wizard.collected import learning_point, more_helps
from calibration.wizard.config import CalibrateConfig, DecideSection, load_config
from calibration.wizard.results import (
    STEPS,
    DecoderScore,
    DeployResult,
    Finding,
    Gain,
    LearningPoint,
    PreflightResult,
    SpeedShare,
    StepResults,
    VerifyResult,
)
from calibration.wizard.run import Progress
from calibration.wizard.steps.report import (
    draw_intervals,
    draw_learning_curve,
    draw_traces,
    draw_units,
)
from calibration.wizard.steps.verify import judge, speed_line, speed_share
from calibration.wizard.ui import Screen
from calibration.wizard.units import UnitTuning, screen_units
from streams.messages import SpikeBatch
from streams.sessions.session import Behavior, Session, Trials
from tests.decoders.sessions import tuned_session

CONFIG = Path(__file__).parents[2] / "configs" / "calibrate.toml"
POSITION = "processing/behavior/Position/cursor_position"


def spikes_of(trains: list[np.ndarray]) -> SpikeBatch:
    """Trains of seconds as a batch."""
    unit = np.repeat(np.arange(len(trains)), [len(one) for one in trains]).astype(np.int32)
    t_us = np.rint(np.concatenate(trains) * 1e6).astype(np.int64)
    order = np.argsort(t_us, kind="stable")
    return SpikeBatch(t_us[order], unit[order], np.ones(len(unit), np.int32))


def poisson(rate_hz: float, seed: int, seconds: float = 10.0) -> np.ndarray:
    """A regular enough neuron: exponential intervals after 3 ms of refractoriness."""
    rng = np.random.default_rng(seed)
    intervals = 0.003 + rng.exponential(1.0 / rate_hz, round(3 * rate_hz * seconds))
    times = np.cumsum(intervals)
    return times[times < seconds]


def test_bad_channels_are_told_from_neurons() -> None:
    good = [poisson(20.0, seed) for seed in range(6)]
    twin = good[0] + 1e-4
    burst = np.concatenate([start + np.arange(40) * 0.004 for start in (1.0, 4.0, 8.0)])
    noise = np.sort(np.random.default_rng(9).uniform(0, 10, 2000))
    session = Session(
        id="s/2026-01-01/a",
        unit_keys=(*(f"u{i}" for i in range(6)), "twin", "burst", "noise", "dead", "quiet"),
        spikes=spikes_of([*good, twin, burst, noise, np.zeros(0), np.zeros(0)]),
        behavior={},
        trials=None,
        duration_s=10.0,
    )
    before = {key: 20.0 for key in session.unit_keys if key not in ("u3", "quiet")} | {"quiet": 0.1}
    seen = screen_units(session, before)
    assert seen.dead == ["dead"]
    assert seen.duplicated == [("u0", "twin")]
    assert seen.bursting == ["burst"]
    assert seen.noisy == ["noise"]
    assert seen.unknown == ["u3"]
    assert seen.rates_hz["u1"] == pytest.approx(20.0, rel=0.25)


def centre_out(angles: np.ndarray) -> Session:
    """Trials from the centre to ten centimetres away."""
    n = len(angles)
    t_s = np.arange(0.0, 2.0 * n, 0.01)
    where = Behavior(t_s, np.zeros((len(t_s), 2)), "cm")
    starts = 2.0 * np.arange(n) + 0.5
    targets = 10.0 * np.column_stack([np.cos(angles), np.sin(angles)])
    trials = Trials(starts, starts + 1.0, {"target": targets})
    return replace(tuned_session(), behavior={POSITION: where}, trials=trials)


def test_directions_are_counted_and_one_line_is_no_balance() -> None:
    around = count_trials(centre_out(np.arange(16) * np.pi / 4), "cursor")
    assert (around.n, around.sectors) == (16, (2,) * 8)
    assert around.balance == pytest.approx(1.0)
    line = count_trials(centre_out(np.array([0.0, np.pi] * 8)), "cursor")
    assert line.sectors == (8, 0, 0, 0, 8, 0, 0, 0)
    assert line.balance == pytest.approx(0.0, abs=1e-9)
    unknown = count_trials(centre_out(np.zeros(3)), "hand")
    assert (unknown.n, unknown.n_directed) == (3, 0)
    assert count_trials(replace(centre_out(np.zeros(3)), trials=None), "cursor").n == 0


def test_the_curve_rises_with_data_and_stays_down_without_tuning() -> None:
    target = TargetSpec("velocity", "velocity", "cm/s", 2, is_velocity=True)
    session = tuned_session(n_units=12, duration_s=40.0)
    point = learning_point(session, target)
    assert point is not None
    assert point.r2 > 0.5
    mixed = np.random.default_rng(0).permutation(session.spikes.unit)
    lost = replace(session, spikes=replace(session.spikes, unit=mixed))
    control = learning_point(lost, target)
    assert control is not None
    assert control.r2 < 0.2
    assert learning_point(replace(session, trials=None), target) is None


@pytest.mark.parametrize(
    ("r2", "helps"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], True),
        ([0.1, 0.3, 0.5, 0.5, 0.5, 0.5], False),
        ([0.1, 0.2], None),
        ([], None),
    ],
)
def test_more_data_help_as_long_as_the_last_third_gained(
    r2: list[float], helps: bool | None
) -> None:
    points = [LearningPoint(10.0 * (i + 1), i + 1, value) for i, value in enumerate(r2)]
    assert more_helps(points) is helps


def test_decodes_that_are_too_slow_are_told_with_the_gain_that_makes_up_for_it() -> None:
    rng = np.random.default_rng(0)
    actual, block = rng.normal(size=(4000, 2)), np.arange(4000) // 200
    decoded = 0.8 * actual + 0.3 * rng.normal(size=(4000, 2))
    speed = speed_share(decoded, actual, block, seed=0)
    assert speed.share == pytest.approx(0.8, abs=0.02)
    assert speed.ci[0] < 0.8 < speed.ci[1]
    told = speed_line(speed)
    assert f"gain={1.0 / speed.share:.2f}" in told
    assert "gain=1.30" in speed_line(SpeedShare(0.2, [0.1, 0.3]))
    assert "gain" not in speed_line(SpeedShare(0.95, [0.88, 1.02]))
    assert speed_line(None) == ""


def verified(today: float, yesterday: float, wiener: float, shuffled: float) -> VerifyResult:
    means = {"yesterday": yesterday, "wiener": wiener, "shuffled": shuffled}
    return VerifyResult(
        output="velocity",
        unit="cm/s",
        test="40.000-60.000",
        seconds=20.0,
        blocks="trials",
        n_blocks=9,
        decoders={"today": DecoderScore([today] * 2, [[0.0, 1.0]] * 2, today, [0.0, 1.0])},
        gains={name: Gain(today - mean, [-1.0, 1.0]) for name, mean in means.items()},
    )


@pytest.mark.parametrize(
    ("scores", "failing"),
    [
        ((0.8, 0.3, 0.6, -0.1), []),
        ((0.3, 0.2, 0.2, -0.1), ["R2 on held-out trials"]),
        ((0.5, 0.6, 0.4, 0.0), ["above yesterday's decoder"]),
        ((0.5, 0.4, 0.6, 0.45), ["above the shuffled control", "above the Wiener filter"]),
    ],
)
def test_each_threshold_is_held_on_its_own(
    scores: tuple[float, float, float, float], failing: list[str]
) -> None:
    rules = judge(verified(*scores), DecideSection())
    assert [rule.rule for rule in rules if not rule.holds] == failing
    assert len(rules) == 4


def test_progress_survives_and_keeps_its_results(tmp_path: Path) -> None:
    found = PreflightResult(findings=[Finding("good", "disk", "1 GiB free")], overridden=False)
    progress = Progress(tmp_path / "day", resume=False)
    progress.done("preflight", found)
    progress.keep(recordings=("x.xdf",))
    progress.close()
    saved = json.loads((tmp_path / "day" / "progress.json").read_text())
    finding = {"level": "good", "what": "disk", "found": "1 GiB free", "do": "", "code": 2}
    assert saved["steps"] == {"preflight": {"findings": [finding], "overridden": False}}
    assert saved["notes"] == {"recordings": ["x.xdf"]}
    again = Progress(tmp_path / "day", resume=True)
    assert again.results == StepResults(preflight=found)
    assert again.notes.recordings == ("x.xdf",)
    assert again.started_utc == progress.started_utc
    again.forget(("preflight", "collect"))
    again.close()
    saved = json.loads((tmp_path / "day" / "progress.json").read_text())
    assert saved["steps"] == {}


def test_only_what_a_step_has_set_is_saved_and_what_adapt_tells_is_kept() -> None:
    rejected = DeployResult(deployed=False, why="by hand")
    assert rejected.as_json() == {"deployed": False, "why": "by hand"}
    told = {
        "bundle": "b", "checksum": "c", "decoder_id": "d", "parent_id": None, "adapt_s": 1.0,
        "seconds": 2.0, "n_steps": 3, "start": "tuning", "outputs": {"velocity": {"r2": [0.5]}},
    }  # fmt: skip
    results = StepResults.model_validate({"adapt": told})
    assert results.as_json() == {"adapt": told}
    assert STEPS[0] == "preflight"
    assert STEPS[-1] == "recalibrate"


def test_a_calibration_is_neither_overwritten_nor_made_up(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "day", resume=False)
    progress.done("preflight", PreflightResult(findings=[], overridden=False))
    progress.close()
    with pytest.raises(WizardError, match="holds a calibration already"):
        Progress(tmp_path / "day", resume=False)
    with pytest.raises(WizardError, match="nothing to resume"):
        Progress(tmp_path / "other", resume=True)
    (tmp_path / "day" / "progress.json").write_text("{")
    with pytest.raises(WizardError, match="cannot be read"):
        Progress(tmp_path / "day", resume=True)


def _try(folder: Path, told: Any) -> None:
    try:
        Progress(folder, resume=False)
    except WizardError as err:
        told.put(str(err))


def test_a_second_wizard_is_kept_out(tmp_path: Path) -> None:
    first = Progress(tmp_path, resume=False)
    told: Any = multiprocessing.get_context("fork").Queue()
    other = multiprocessing.get_context("fork").Process(target=_try, args=(tmp_path, told))
    other.start()
    other.join()
    said = told.get(timeout=10)
    assert re.search(r"another wizard \(process \d+\) works in", said)
    first.close()
    Progress(tmp_path, resume=False).close()


def test_calibrate_toml_says_every_default() -> None:
    assert load_config(CONFIG) == CalibrateConfig()
    said = tomllib.loads(CONFIG.read_text())
    defaults = CalibrateConfig().model_dump(mode="json")
    assert said == defaults
    text = CONFIG.read_text()
    for section, fields in defaults.items():
        for key in fields:
            assert re.search(rf"^{key} = \S.*# \S", text, flags=re.M), f"{section}.{key}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[colect]\n", "did you mean 'collect'"),
        ("[collect]\nlearn = 5\n", "did you mean 'learn_s'"),
        ("[collect]\nlearn_s = 1\n", "greater than or equal to 5"),
        ("[decide]\nleast_r2 = 'much'\n", "decide.least_r2"),
        ("nonsense", "is not TOML"),
    ],
)
def test_a_wrong_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(WizardError, match=re.escape(message)):
        load_config(tmp_path / "a.toml")


def svg_of(image: str) -> str:
    """The SVG inside of an `<img>` of the report, which must parse."""
    found = re.fullmatch(r'<img alt="[^"<>]*" src="data:image/svg\+xml;base64,([^"]+)">', image)
    assert found, image[:100]
    svg = base64.b64decode(found.group(1)).decode()
    ElementTree.fromstring(svg)
    return svg


def test_figures_are_well_formed_and_hold_what_they_show() -> None:
    names = ("one < two", "three", "four", "five")
    score = DecoderScore([0.5], [[0.4, 0.6]], 0.5, [-3.0, 0.6])
    assert "one &lt; two" in svg_of(draw_intervals(dict.fromkeys(names, score)))
    t_s = np.concatenate([np.arange(0, 2, 0.1), np.arange(5, 6, 0.1)])
    trace = np.stack([np.sin(t_s), np.full(len(t_s), np.nan)], axis=1)
    traces = dict.fromkeys(("actual", "yesterday", "today"), trace)
    drawn = svg_of(draw_traces(t_s, traces, "velocity", "cm/s"))
    assert "velocity x (cm/s)" in drawn
    assert "yesterday's" in drawn
    curve = svg_of(
        draw_learning_curve([LearningPoint(5.0, 6, 0.2), LearningPoint(9.0, 9, 0.4)], "R2 so far")
    )
    assert "seconds collected" in curve
    assert "R2 so far" in curve
    units = [
        UnitTuning("ch1/u1", "ok", 5.0, 4.0, 1.0, 2.0, 0.1),
        UnitTuning("ch2/u1", "silent", 0.0, 4.0, 0.0, 0.0, 0.0),
        UnitTuning("ch3/u1", "new", 2.0, None, -1.0, 0.5, 0.1),
    ]
    drawn = svg_of(draw_units(units))
    assert "ch3/u1" in drawn
    assert "ch2/u1" not in drawn
    assert "3 units" in drawn
    svg_of(draw_units([]))


@pytest.mark.parametrize(
    ("starts_s", "verify_s", "begins_s"),
    [
        (range(0, 60, 2), 20.0, 40.0),
        (range(0, 60, 3), 20.0, 39.0),
        (range(0, 60, 10), 20.0, 30.0),
        (range(0, 60, 10), 45.0, 10.0),
        ((5, 30, float("nan")), 20.0, 30.0),
        ((), 20.0, 40.0),
    ],
)
def test_enough_trials_are_held_out_but_no_more_than_half(
    starts_s: Iterable[float], verify_s: float, begins_s: float
) -> None:
    starts = np.array(list(starts_s), np.float64)
    session = replace(tuned_session(), trials=Trials(starts, starts + 1.0), duration_s=60.0)
    assert held_out(session, verify_s) == f"{begins_s:.3f}-60.000"


@pytest.mark.parametrize("height", [8, 24, 60])
def test_the_keys_stay_in_view_in_a_window_of_any_height(height: int) -> None:
    page = Panel(Text("\n".join(f"line {i}" for i in range(30))))
    told = StringIO()
    console = Console(width=80, height=height, file=told, force_terminal=False)
    console.print(Screen(page, Panel("enter  go on")), end="")
    lines = told.getvalue().splitlines()
    assert len(lines) <= height
    assert "go on" in lines[-2]
    assert ("more lines: make this window higher" in "\n".join(lines)) == (height < 35)
    assert "line 0" in "\n".join(lines)
