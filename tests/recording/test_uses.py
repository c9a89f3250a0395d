"""What a recorded run is good for: one decode with its tokens, another decoder, an NWB file."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from streams.sessions.reading import read_session
from tests.recording.conftest import Recorded

_RUN = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"


def ran(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-c", _RUN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def test_one_decode_with_its_tokens(recorded: Recorded) -> None:
    said = next(d for d in recorded.heard.decodes if d["validity"] == "ok" and d["tokens"] > 0)
    told = json.loads(ran("redecode", str(recorded.path), "--at", str(said["seq"]), "--json"))
    assert told["decode"] == said
    assert told["same"]
    assert len(told["tokens"]) == said["tokens"]
    assert {token["unit"] for token in told["tokens"]} <= {f"u{i}" for i in range(8)}
    assert all(0 <= token["before_ms"] < 20 for token in told["tokens"])
    lines = ran("redecode", str(recorded.path), "--at", str(said["seq"]))
    assert "the same, bit for bit" in lines
    assert "ms before the end" in lines
    assert "holds no decode" in ran("redecode", str(recorded.path), "--at", "999999", code=2)


def test_the_same_decoder_agrees_with_itself_and_another_does_not(
    recorded: Recorded, bundle: Path, other: Path, tmp_path: Path
) -> None:
    def beside(decoder: Path, *more: str) -> dict[str, Any]:
        report = json.loads(ran("redecode", str(recorded.path), "--decoder", str(decoder), *more))
        found: dict[str, Any] = report["outputs"]["velocity"]
        return found

    same = beside(bundle, "--backend", "onnxruntime-cpu")
    assert same["rms_difference"] == [0.0, 0.0]
    n_ok = sum(decode["validity"] == "ok" for decode in recorded.heard.decodes)
    assert 0.5 * n_ok < same["decodes"] <= n_ok + 100
    figure = tmp_path / "beside.png"
    apart = beside(other, "--figure", str(figure))
    assert apart["rms_difference"] != [0.0, 0.0]
    assert figure.stat().st_size > 10_000


def test_a_backend_that_does_not_run_the_decoder_is_told(recorded: Recorded) -> None:
    assert "use onnxruntime-cpu" in ran(
        "redecode", str(recorded.path), "--backend", "numba-cpu", code=5
    )


def test_an_nwb_file_of_a_run(recorded: Recorded, tmp_path: Path) -> None:
    out = tmp_path / "run.nwb"
    told = json.loads(ran("convert", str(recorded.path), "-o", str(out), "--id", "s/2026-11-28/r"))
    assert told["session"] == "s/2026-11-28/r"
    assert told["spikes"] == pytest.approx(recorded.n_sent, abs=20)
    assert {"processing/decodes/velocity", "processing/decodes/velocity_raw"} <= set(told["series"])
    session = read_session(out)
    assert len(session.spikes) == told["spikes"]
    assert set(session.behavior) == set(told["series"])
    from pynwb import NWBHDF5IO

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(str(out), "r") as io:
            nwb = io.read()
            settings = nwb.intervals["settings"].to_dataframe()
            validity = nwb.intervals["validity"].to_dataframe()
            events = nwb.intervals["events"].to_dataframe()
            n_decodes = nwb.processing["decodes"]["velocity"].data.shape[0]
    assert settings["paused"].tolist() == [False, True]
    assert validity["validity"].tolist()[-2:] == ["paused", "paused"]
    assert "paused" in events["event"].tolist()
    assert n_decodes == recorded.heard.decodes[-1]["seq"]


def test_what_cannot_be_is_said(recorded: Recorded, tmp_path: Path) -> None:
    assert "no recorded run" in ran("redecode", str(tmp_path), code=2)
    assert "name its folder alone" in ran(
        "convert", str(recorded.path), str(recorded.path), "-o", str(tmp_path / "x.nwb"), code=2
    )
