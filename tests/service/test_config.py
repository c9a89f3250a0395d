"""A config that cannot be used is refused, naming the file, the key and what would do."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.config import RecordConfig, ServeConfig, load_config, parse_config
from service.errors import ConfigError


def parsed(text: str) -> ServeConfig:
    return parse_config(tomllib.loads(text), ServeConfig, "lab.toml")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parsed(text)
    return str(error.value)


def test_an_empty_file_is_all_defaults() -> None:
    config = parsed("")
    assert config == ServeConfig()
    assert (config.input.type, config.beat.settle_ms, config.output.lsl_name) == (
        "Spikes",
        "auto",
        "spikeloop",
    )


def test_whole_numbers_do_where_seconds_are_meant() -> None:
    config = parsed("[beat]\nhop_ms = 10\nsettle_ms = 2\n[input]\nwait_s = 3\n")
    assert (config.beat.hop_ms, config.beat.settle_ms, config.input.wait_s) == (10, 2, 3)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parsed("").input.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[beat]\nhopms = 20\n", "unknown key 'beat.hopms'; did you mean 'hop_ms'?"),
        ("[input]\nnmae = 'x'\n", "unknown key 'input.nmae'; did you mean 'name'?"),
        ("[ouput]\n", "unknown key 'ouput'; did you mean 'output'?"),
        (
            "[output]\nzzz = 1\n",
            "unknown key 'output.zzz'; valid are: clients, control, decode, format",
        ),
        ("[output]\nform = 'json'\n", "unknown key 'output.form'; did you mean 'format'?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(text: str, told: str) -> None:
    assert refusal(text).startswith("lab.toml: ")
    assert told in refusal(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[input]\ntype = 7\n", "input.type"),
        ("[input]\nbudget_spikes_per_s = 5e4\n", "input.budget_spikes_per_s"),
        ("[input]\nbudget_spikes_per_s = '50000'\n", "input.budget_spikes_per_s"),
        ("[beat]\nhop_ms = '20'\n", "beat.hop_ms"),
        ("[beat]\nhop_ms = true\n", "beat.hop_ms"),
        ("[beat]\nsettle_ms = 'soon'\n", "beat.settle_ms"),
        ("[beat]\ntoken_cap = 1.5\n", "beat.token_cap"),
        ("[output]\nlsl_outlet = 1\n", "output.lsl_outlet"),
        ("[decoder]\nfallback = 'torch'\n", "decoder.fallback"),
        ("beat = 20\n", "beat"),
    ],
)
def test_a_wrong_type_is_refused(text: str, key: str) -> None:
    assert f"lab.toml: {key}" in refusal(text)
    assert "(got " in refusal(text)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("input", "type", "''"),
        ("input", "array", "'m1:'"),
        ("input", "budget_spikes_per_s", "99"),
        ("input", "budget_spikes_per_s", "2000001"),
        ("input", "wait_s", "0"),
        ("input", "wait_s", "inf"),
        ("decoder", "bundle", "''"),
        ("decoder", "lead_s", "-1.1"),
        ("decoder", "lead_s", "1.1"),
        ("beat", "hop_ms", "0"),
        ("beat", "hop_ms", "nan"),
        ("beat", "hop_ms", "1001"),
        ("beat", "token_cap", "0"),
        ("output", "lsl_name", "''"),
        ("shaping", "gain", "-1"),
        ("shaping", "gain", "nan"),
        ("shaping", "gain", "101"),
        ("shaping", "smoothing", "1.0"),
        ("shaping", "smoothing", "-0.1"),
        ("shaping", "bias", "[0.0, inf]"),
        ("shaping", "speed_power", "0.0"),
        ("shaping", "speed_ref", "0.0"),
        ("shaping", "speed_ref", "inf"),
        ("shaping", "max_speed", "-1.0"),
        ("shaping", "max_speed", "nan"),
        ("shaping", "bounds", "{ position = [1.0, -1.0] }"),
        ("shaping", "bounds", "{ position = [0.0, nan] }"),
        ("shaping", "bounds", "{ position = [0.0] }"),
    ],
)
def test_an_impossible_value_is_refused(section: str, key: str, value: str) -> None:
    assert f"lab.toml: {section}.{key}" in refusal(f"[{section}]\n{key} = {value}\n")


def test_every_fault_is_told_at_once() -> None:
    told = refusal("[beat]\nhop = 20\n[shaping]\ngain = -1\n")
    assert "beat.hop" in told
    assert "shaping.gain" in told


def test_a_file_that_is_not_there_says_where_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"configs/serve\.toml"):
        load_config(tmp_path / "none.toml", ServeConfig)


@pytest.mark.parametrize("content", [b"[beat\n", b"\xff\xfe\x00", b"hop_ms: 20\n"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lab.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"lab\.toml is not TOML"):
        load_config(path, ServeConfig)


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path, ServeConfig)


@pytest.mark.parametrize(("text", "enabled"), [("record = false", False), ("record = true", True)])
def test_record_false_stands_for_a_section(tmp_path: Path, text: str, enabled: bool) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    assert load_config(path, ServeConfig).record == RecordConfig(enabled=enabled)
