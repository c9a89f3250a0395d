"""The file for bug reports tells nothing of whose rig it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.config import ServeConfig, parse_config
from service.doctor import Finding
from service.setup.report import changed, report, scrubbed
from tests.system.running import toml, unique

SECRETS = ("Patient-7", "amp.hospital.org", "secret", "10.1.2.3", "ch12/u1", "/home/alice")
STREAM = (
    "'Patient-7' (type Spikes, 3 x int32, irregular, source_id 'secret', host amp.hospital.org)"
)
TEXTS = (
    STREAM,
    f"no LSL stream with name='Patient-7' answered within 5 s; visible: {STREAM}, {STREAM}",
    "no bundle at /home/alice/Patient-7/bundles/secret; name a directory",
    "address tcp://amp.hospital.org:5570 is refused; tcp://10.1.2.3:1 too",
    "cannot read ~/secret/Patient-7/keys: No such file",
    "10.1.2.3 is not reached, host amp.hospital.org",
    "the decoder does not know ch12/u1, ch12/u1 ...",
    "all from /home/alice/.venv/lib/python3.11/site-packages",
)


@pytest.mark.parametrize("text", TEXTS)
def test_names_paths_addresses_and_units_are_taken_out(text: str) -> None:
    assert not [secret for secret in SECRETS if secret in scrubbed(text)]
    assert "<" in scrubbed(text)


@pytest.mark.parametrize(
    "text",
    ["onnxruntime 1.32.0", "LSL's clock is 12 us from ours", "cpu: onnxruntime 1.32.0, rtx: none"],
)
def test_versions_and_numbers_stay(text: str) -> None:
    assert scrubbed(text) == text


def test_of_the_config_numbers_and_words_of_ours_are_told() -> None:
    table = {
        "input": {"name": "Patient-7", "hostname": "amp.hospital.org", "wait_s": 9.0},
        "decoder": {"bundle": "/home/alice/secret", "backend": "numba-cpu"},
        "beat": {"cut": "settled"},
        "output": {"keys": "/home/alice/keys"},
    }
    told = changed(parse_config(table, ServeConfig, "test"))
    assert told == {
        "input.name": "set",
        "input.hostname": "set",
        "input.wait_s": 9.0,
        "decoder.bundle": "set",
        "decoder.backend": "numba-cpu",
        "beat.cut": "settled",
        "output.keys": "set",
    }


def test_streams_and_units_are_counted_not_named() -> None:
    found = [
        Finding("LSL streams seen", True, f"{STREAM}; {STREAM}"),
        Finding("units", False, "Patient-7's units"),
    ]
    told = report(found, None)["findings"]
    assert [one["said"] for one in told] == ["2 streams", ""]


def test_doctor_writes_it(tmp_path: Path) -> None:
    name, path, config = unique("Patient"), tmp_path / "report.json", tmp_path / "rig.toml"
    config.write_text(
        toml({"input": {"name": name, "wait_s": 0.2}, "decoder": {"bundle": f"{tmp_path}/none"}})
    )
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "doctor", str(config), "--report", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    told = json.loads(path.read_text())
    assert told["machine"]["python"]
    assert {one["what"]: one["ok"] for one in told["findings"]}["input stream"] is False
    assert name not in path.read_text()
    assert str(tmp_path) not in path.read_text()
