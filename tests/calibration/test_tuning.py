"""`spikeloop tune`: a front of accuracy and time, and the config of the best that fits."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.tuning import runners
from calibration.tuning.draws import Draws
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
    names = tuple(f"onnxruntime-cpu{precision}" for precision in ("", ":fp16", ":bf16"))
    settings = Settings(budget_ms=1000.0, trials=2, steps=2, runners=names)
    told = tune(config_path, out, settings, said.append)
    tried = json.loads((out / "trials.json").read_text())
    assert [one["runner"] for one in tried] == 2 * list(names)
    for fp32, fp16, bf16 in (tried[:3], tried[3:]):
        assert fp32["why"] == fp16["why"] == ""
        assert fp16["r2"] <= fp32["r2"]
        assert fp16["step_ms"] > 0
        assert "no kernels for bf16" in bf16["why"]
    assert told["chosen"]["r2"] == max(one["r2"] for one in tried if not one["why"])
    assert told["default"]["runner"] == "onnxruntime-cpu"
    tuned, own = load_config(out / "tuned.toml"), load_config(config_path)
    sizes = {name: getattr(tuned.network, name.partition(".")[2]) for name in SIZES}
    assert sizes == told["chosen"]["choice"]
    assert tuned.training == own.training
    assert told["default"]["choice"]["network.d_memory"] == own.network.d_memory
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    assert f'backend = "{told["chosen"]["runner"]}"' in (out / "tuned.toml").read_text()
    assert sum("refused" in line for line in said) == 2


@pytest.mark.long
def test_a_budget_that_nothing_fits_is_said_with_the_fastest(config_path: Path) -> None:
    out = config_path.parent / "tune"
    settings = Settings(budget_ms=1e-6, trials=1, steps=2, runners=("onnxruntime-cpu",))
    with pytest.raises(CalibrationError, match="the fastest took"):
        tune(config_path, out, settings, lambda line: None)
    assert (out / "trials.json").exists()


@pytest.mark.long
def test_where_nothing_runs_it_is_said_why(config_path: Path) -> None:
    settings = Settings(budget_ms=1.0, trials=1, steps=2, runners=("onnxruntime-cpu:bf16",))
    with pytest.raises(CalibrationError, match=r"nothing that was tried runs here: .*bf16"):
        tune(config_path, config_path.parent / "tune", settings, lambda line: None)


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


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_drawn_twice_and_everything_once(seed: int) -> None:
    space = {"network.n_latents": (2, 4, 8), "network.d_unit": (16, 32), "beat.hop_ms": (20.0,)}
    first = {"network.n_latents": 4, "network.d_unit": 32, "beat.hop_ms": 20.0, "beat.bin_ms": 40.0}
    draws, drawn = Draws(space, first, seed), []
    for trial, choice in draws:
        drawn.append(tuple(choice.values()))
        # TPE would ask for the best over and over.
        draws.tell(trial, float(choice["network.n_latents"]), 1.0)
    assert drawn[0] == (4, 32, 20.0)
    assert sorted(drawn) == sorted(itertools.product(*space.values()))


def test_a_machine_without_a_gpu_tries_its_cpu_in_every_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runners, "gpu_name", lambda: "")
    assert runners.runners_here() == ("onnxruntime-cpu", "onnxruntime-cpu:fp16", "numba-cpu")
    monkeypatch.setattr(runners, "gpu_name", lambda: "a card")
    assert "tensorrt:bf16" in runners.runners_here()


def test_of_equals_the_faster_is_chosen() -> None:
    slow, fast = Tried({}, "a", 0.5, 0.3), Tried({}, "b", 0.5, 0.2)
    assert best_within([slow, fast], 1.0) is fast


def test_a_config_is_written_as_it_was_read() -> None:
    fields = tomllib.loads(CONFIG.format(steps=6))
    assert tomllib.loads(written(fields)) == fields
    changed = with_choice(fields, {"network.d_model": 7, "lead.max_s": 0.1})
    assert tomllib.loads(written(changed))["network"]["d_model"] == 7
    assert "lead" not in fields
