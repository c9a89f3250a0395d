"""The training config: what is shipped loads, what is wrong is named with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from decoders.config import load_config, load_sessions
from decoders.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
TRAINING = ("train-demo.toml", "train-multisession.toml", "finetune.toml")
LEAST = """
name = "x"
[sessions]
glob = ["a.nwb"]
[[outputs]]
name = "velocity"
behavior = "velocity"
"""


@pytest.mark.parametrize("name", TRAINING)
def test_shipped_configs_load_and_begin_with_their_command(name: str) -> None:
    text = (CONFIGS / name).read_text()
    assert text.startswith(f"# spikeloop train configs/{name}\n")
    assert load_config(CONFIGS / name).outputs


def write(tmp_path: Path, extra: str, text: str = LEAST) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(text + extra)
    return path


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    again = '[[outputs]]\nname = "velocity"\nbehavior = "position"\n'
    with pytest.raises(ConfigError, match="two outputs are named velocity"):
        load_config(write(tmp_path, again))


def test_defaults_fill_in(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""))
    assert (config.beat.hop_ms, config.split) == (20.0, "last:0.2")


@pytest.mark.parametrize(
    ("extra", "key", "hint"),
    [
        ("[training]\nstep = 3\n", "training.step", "did you mean 'steps'"),
        ("[training]\nsteps = 0\n", "training.steps", "greater than or equal to 1"),
        ("[beat]\nhop_ms = 20\nbin_ms = 10\n", "beat", "must not be below hop_ms"),
        ("[lead]\nmin_s = 0.1\nmax_s = 0.2\n", "lead", "must hold 0"),
        ("[netwrk]\n", "netwrk", "did you mean 'network'"),
        ("[training]\ndropout = 'much'\n", "training.dropout", "valid number"),
        ("[sessions.units]\nwher = 'x'\n", "sessions.units.wher", "did you mean 'where'"),
        ("[sessions.counts]\nstamp = 'end'\n", "sessions.counts.series", "required"),
        ("[sessions.trials]\nticks_per_s = 0\n", "trials.ticks_per_s", "greater than 0"),
        ("[split]\ntrian = 'good'\n", "split.trian", "did you mean 'train'"),
        ("[split]\ntrain = 'good'\n", "split", "give train and test"),
        ("[split]\ntrain = 'a'\ntest = 'b'\ntest_files = ['c']\n", "split", "give train and test"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, extra: str, key: str, hint: str) -> None:
    path = write(tmp_path, extra)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert str(path) in str(raised.value)
    assert key in str(raised.value)
    assert hint in str(raised.value)


def test_a_text_stands_for_a_table_with_one_key(tmp_path: Path) -> None:
    extra = """
mask = "eval_mask"
units = "processing/ecephys/units"
trials = "intervals/reaches"
counts = "binned_spikes"
between_s = [10, 20.5]
"""
    text = LEAST.replace('glob = ["a.nwb"]\n', 'glob = ["a.nwb"]' + extra)
    choice = load_config(write(tmp_path, "", text)).session_choice
    assert choice.behavior == ("velocity",)
    assert choice.mask == "eval_mask"
    assert choice.units.table == "processing/ecephys/units"
    assert choice.trials.table == "intervals/reaches"
    assert (choice.counts.series, choice.counts.stamp) == ("binned_spikes", "start")
    assert choice.between_s == (10.0, 20.5)


@pytest.mark.parametrize("split", ["last", "last:1.5", "trials:", "trials:a b", "val"])
def test_splits_that_are_none_are_named(tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.toml: split: String should match"):
        load_config(write(tmp_path, "", f'split = "{split}"\n' + LEAST))


def test_sessions_alone_can_be_read_of_a_config(tmp_path: Path) -> None:
    path = tmp_path / "choose.toml"
    path.write_text("[sessions]\nunits.where = 'good'\n")
    assert load_sessions(path).units.where == "good"
    path.write_text("[sessions]\nunits.where = 'good'\nmsk = 'x'\n")
    with pytest.raises(ConfigError, match=r"sessions\.msk'; did you mean 'mask'"):
        load_sessions(path)
    path.write_text("[units]\nwhere = 'good'\n")
    with pytest.raises(ConfigError, match=r"no table \[sessions\]"):
        load_sessions(path)


def test_an_unknown_key_of_an_output_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"outputs\.0\.behaviour'; did you mean 'behavior'"):
        load_config(write(tmp_path, 'behaviour = "velocity"\n'))


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config file .* is one to start from"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(write(tmp_path, "= =", text=""))
