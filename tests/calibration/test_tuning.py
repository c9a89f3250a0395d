"""`spikeloop tune`: a front of accuracy and time, and the config of the best that fits."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.tuning.search import SIZES, Settings, Tried, best_within, front_of, tune
from calibration.tuning.trials import with_choice, written
from decoders.config import load_config
from decoders.errors import ConfigError
from streams.sessions.nwb.writer import write_session
from tests.decoders.sessions import tuned_session
from tests.decoders.test_training import CONFIG

FIGURES = st.floats(0.01, 10.0)


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """A config beside one session."""
    write_session(tuned_session("one"), tmp_path / "one.nwb")
    path = tmp_path / "train.toml"
    path.write_text(CONFIG.format(steps=6))
    return path


@pytest.mark.long
def test_the_config_that_is_written_is_of_the_best_that_fits(config_path: Path) -> None:
    out, said = config_path.parent / "tune", list[str]()
    settings = Settings(budget_ms=1000.0, trials=3, steps=2)
    told = tune(config_path, out, settings, said.append)
    tried = json.loads((out / "trials.json").read_text())
    assert [one["why"] for one in tried] == ["", "", ""]
    assert told["chosen"]["r2"] == max(one["r2"] for one in tried)
    tuned, own = load_config(out / "tuned.toml"), load_config(config_path)
    sizes = {name: getattr(tuned.network, name.partition(".")[2]) for name in SIZES}
    assert sizes == told["chosen"]["choice"]
    assert tuned.training == own.training
    assert told["default"]["choice"]["network.d_memory"] == own.network.d_memory
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    assert len(said) == 3


@pytest.mark.long
def test_a_budget_that_nothing_fits_is_said_with_the_fastest(config_path: Path) -> None:
    out = config_path.parent / "tune"
    with pytest.raises(CalibrationError, match="the fastest took"):
        tune(config_path, out, Settings(budget_ms=1e-6, trials=1, steps=2), lambda line: None)
    assert (out / "trials.json").exists()


def test_a_folder_that_is_there_is_kept(config_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        tune(config_path, config_path.parent, Settings(budget_ms=1.0), lambda line: None)


@given(st.lists(st.tuples(FIGURES, FIGURES), min_size=1, max_size=12), FIGURES)
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]], budget: float) -> None:
    tried = [Tried({}, r2=r2, step_ms=ms) for r2, ms in points]
    front = {(one.r2, one.step_ms) for one in front_of(tried)}
    for r2, ms in points:
        beaten = any(a >= r2 and b <= ms and (a, b) != (r2, ms) for a, b in points)
        assert ((r2, ms) in front) != beaten
    chosen = best_within(tried, budget)
    fitting = [r2 for r2, ms in points if ms <= budget]
    assert (chosen.r2 if chosen else None) == max(fitting, default=None)


def test_a_config_is_written_as_it_was_read() -> None:
    fields = tomllib.loads(CONFIG.format(steps=6))
    assert tomllib.loads(written(fields)) == fields
    changed = with_choice(fields, {"network.d_model": 7, "lead.max_s": 0.1})
    assert tomllib.loads(written(changed))["network"]["d_model"] == 7
    assert "lead" not in fields
