"""`backend = "auto"`: real backends, timed on this machine, and a real cache folder."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.backends import table
from export.backends.onnxruntime_cpu import OnnxruntimeBackend
from export.backends.opening import open_backend
from export.backends.table import Backend
from export.bundle import DecoderBundle, open_bundle
from export.choice import auto
from export.errors import BackendUnavailable, BundleError
from streams.messages import TokenWindow
from tests.system.running import clock

pytest.importorskip("numba")

CPU, COMPILED = "onnxruntime-cpu", "numba-cpu"
BOTH = {CPU, COMPILED}
DEMO = Path(__file__).parents[2] / "configs" / "bundles" / "demo"
IDLE_S, ASLEEP_S = 4e-3, 3e-3


@pytest.fixture
def bundle() -> DecoderBundle:
    return open_bundle(DEMO)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[OnnxruntimeBackend]], str]:
    """Adds a backend to the table for this test."""

    def adds(kind: type[OnnxruntimeBackend]) -> str:
        def opens(bundle: DecoderBundle, precision: str) -> Backend:
            outputs = [output.name for output in bundle.manifest.outputs]
            graph = bundle.graph_path.read_bytes()
            return kind(graph, bundle.manifest.graph, bundle.tables, outputs)

        monkeypatch.setattr(table, "BACKENDS", {kind.name: opens, **table.BACKENDS})
        return kind.name

    return adds


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "spikeloop" / "choices").glob("*.json"))


def timed(caplog: pytest.LogCaptureFixture) -> int:
    """How often backends were timed since the log was cleared."""
    n = [record.message for record in caplog.records].count("timing_backends")
    caplog.clear()
    return n


def test_it_is_the_fastest_of_those_that_pass(bundle: DecoderBundle) -> None:
    opened = open_backend(bundle, "auto")
    assert opened.ranking is not None
    step_ms = opened.ranking.step_ms
    assert set(step_ms) == set(opened.ranking.back_to_back_ms) == BOTH
    assert opened.choice == min(step_ms, key=lambda name: step_ms[name])
    assert opened.backend.name == opened.choice
    assert (opened.ranking.remembered, opened.ranking.note, opened.tried) == (False, "", ())
    assert {opened.choice, *opened.next_choices} == BOTH


def test_the_second_time_nothing_is_timed(
    bundle: DecoderBundle, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spikeloop")
    first = open_backend(bundle, "auto").ranking
    assert (timed(caplog), len(kept(cache))) == (1, 1)
    again = open_backend(bundle, "auto").ranking
    assert timed(caplog) == 0
    assert first is not None
    assert again is not None
    assert again.remembered
    assert list(again.step_ms.items()) == list(first.step_ms.items())
    assert again.back_to_back_ms == first.back_to_back_ms


class SlowAfterWait(OnnxruntimeBackend):
    """As quick as the other back to back, and not after a wait."""

    name = "slow-after-wait"
    t_last_s = 0.0

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        if time.monotonic() - self.t_last_s > IDLE_S:
            clock.sleep_until(clock.now() + ASLEEP_S)
        self.t_last_s = time.monotonic()
        return super().step(window, lead_s)


def test_steps_are_timed_as_in_the_loop_and_not_back_to_back(
    bundle: DecoderBundle, add: Callable[[type[OnnxruntimeBackend]], str]
) -> None:
    slow = add(SlowAfterWait)
    ranking = open_backend(bundle, "auto").ranking
    assert ranking is not None
    assert ranking.order[-1] == slow
    assert ranking.step_ms[slow] >= ASLEEP_S * 1e3 > ranking.back_to_back_ms[slow]


class Wrong(OnnxruntimeBackend):
    """At once ready, with nothing."""

    name = "wrong"

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        return {name: np.zeros_like(value) for name, value in self._values.items()}


def test_one_that_is_not_in_parity_is_refused_however_fast(
    bundle: DecoderBundle, cache: Path, add: Callable[[type[OnnxruntimeBackend]], str]
) -> None:
    wrong = add(Wrong)
    opened = open_backend(bundle, "auto")
    assert opened.choice in BOTH
    reasons = {attempt.name: attempt.reason for attempt in opened.tried}
    assert list(reasons) == [wrong]
    assert "disagrees with the outputs recorded" in reasons[wrong]
    assert kept(cache) == []  # another bundle of this graph may be in parity


class Sleepy(OnnxruntimeBackend):
    """Too slow for a hop of 20 ms."""

    name = "sleepy"

    def step(self, window: TokenWindow, lead_s: float) -> Mapping[str, Any]:
        clock.sleep_until(clock.now() + 11e-3)
        return super().step(window, lead_s)


def test_what_was_too_slow_once_is_timed_again_next_time(
    bundle: DecoderBundle, cache: Path, add: Callable[[type[OnnxruntimeBackend]], str]
) -> None:
    sleepy = add(Sleepy)
    opened = open_backend(bundle, "auto")
    assert opened.ranking is not None
    assert sleepy not in opened.ranking.order
    assert opened.ranking.note.startswith(f"{sleepy} did not run this time")
    assert kept(cache) == []


def test_one_remembered_that_no_longer_opens_is_dropped_and_all_are_timed_anew(
    bundle: DecoderBundle, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "spikeloop")
    open_backend(bundle, "auto")
    (path,) = kept(cache)
    held = json.loads(path.read_bytes())
    for field in ("step_ms", "back_to_back_ms"):
        held[field] = {"torch-cuda": 1e-3} | held[field]
    path.write_text(json.dumps(held))
    timed(caplog)
    opened = open_backend(bundle, "auto")
    assert opened.ranking is not None
    assert not opened.ranking.remembered
    assert set(opened.ranking.order) == BOTH
    assert "remembered_backend_refused" in [record.message for record in caplog.records]
    assert timed(caplog) == 1
    again = open_backend(bundle, "auto").ranking
    assert again is not None
    assert again.remembered
    assert again.order == opened.ranking.order


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', "null"])
def test_a_damaged_file_is_no_memory(bundle: DecoderBundle, cache: Path, damage: str) -> None:
    open_backend(bundle, "auto")
    (path,) = kept(cache)
    path.write_text(damage)
    ranking = open_backend(bundle, "auto").ranking
    assert ranking is not None
    assert not ranking.remembered
    assert json.loads(path.read_bytes())["step_ms"] == ranking.step_ms


@pytest.mark.parametrize("what", ["library_versions", "cpu_model", "gpu_name"])
def test_other_libraries_or_another_machine_remember_nothing(
    bundle: DecoderBundle, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    open_backend(bundle, "auto")
    other = {"numba": "0.1"} if what == "library_versions" else "other"
    monkeypatch.setattr(auto, what, lambda: other)
    ranking = open_backend(bundle, "auto").ranking
    assert ranking is not None
    assert not ranking.remembered
    # A card that is named and that no library finds may be back at the next start.
    assert len(kept(cache)) == (1 if what == "gpu_name" else 2)


def test_a_build_of_the_graph_makes_it_time_anew(
    bundle: DecoderBundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKELOOP_BUILDS", str(cache / "builds"))
    open_backend(bundle, "auto")
    (cache / "builds" / f"{bundle.graph_sha256[:16]}-tensorrt-fp32-0").mkdir(parents=True)
    ranking = open_backend(bundle, "auto").ranking
    assert ranking is not None
    assert not ranking.remembered


def test_beside_a_loop_only_what_it_has_loaded_is_taken(bundle: DecoderBundle, cache: Path) -> None:
    for loaded in BOTH:
        opened = open_backend(bundle, "auto", among={loaded, "flaky"})
        assert opened.ranking is not None
        assert (opened.choice, opened.ranking.order) == (loaded, (loaded,))
        assert "loaded already" in opened.ranking.note
    assert kept(cache) == []
    open_backend(bundle, "auto")
    for loaded in BOTH:
        opened = open_backend(bundle, "auto", among={loaded})
        assert opened.choice == loaded
        assert opened.ranking is not None
        assert opened.ranking.remembered
        assert opened.next_choices == ()
    opened = open_backend(bundle, "auto", among=BOTH)
    assert {opened.choice, *opened.next_choices} == BOTH


def test_if_none_that_is_loaded_runs_the_decoder_others_are_tried(
    poyo_bundle: DecoderBundle,
) -> None:
    opened = open_backend(poyo_bundle, "auto", among={COMPILED})
    assert opened.choice == CPU


@pytest.mark.parametrize("where", ["/dev/null/cache", "no/absolute/path"])
def test_a_cache_that_cannot_be_written_is_told_and_harms_nothing(
    bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", where)
    for _ in range(2):
        ranking = open_backend(bundle, "auto").ranking
        assert ranking is not None
        assert not ranking.remembered
        assert "cannot be written" in ranking.note or "no cache folder" in ranking.note


def test_of_another_family_numba_is_refused_before_it_compiles(poyo_bundle: DecoderBundle) -> None:
    opened = open_backend(poyo_bundle, "auto")
    assert (opened.choice, opened.next_choices) == (CPU, ())
    assert [attempt.name for attempt in opened.tried] == [COMPILED]


def test_a_listed_fallback_stands_by_in_place_of_the_next_fastest(bundle: DecoderBundle) -> None:
    opened = open_backend(bundle, "auto", ["tensorrt", CPU, COMPILED])
    others = tuple(name for name in (CPU, COMPILED) if name != opened.choice)
    assert opened.next_choices == ("tensorrt", *others)


def test_if_nothing_passes_the_fallback_is_opened(
    bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {"numba": table.BACKENDS["tensorrt"], "torch": table.BACKENDS[CPU]}
    monkeypatch.setattr(table, "BACKENDS", alone)
    with pytest.raises(BackendUnavailable):
        open_backend(bundle, "auto")
    opened = open_backend(bundle, "auto", ["torch"])
    assert (opened.choice, opened.ranking) == ("torch", None)
    assert "auto" in [attempt.name for attempt in opened.tried]


def test_auto_stands_alone(bundle: DecoderBundle) -> None:
    with pytest.raises(BackendUnavailable, match="runs fp32"):
        open_backend(bundle, "auto:fp16")
    with pytest.raises(BackendUnavailable, match="is no fallback"):
        open_backend(bundle, CPU, ["auto"])
    with pytest.raises(BackendUnavailable, match="did you mean auto"):
        open_backend(bundle, "autp")


def test_a_refusal_by_all_names_each(
    bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(bundle: DecoderBundle, precision: str) -> Backend:
        raise BundleError("weights of another network")

    both = {"one": refuses, "tensorrt-like": table.BACKENDS["tensorrt"]}
    monkeypatch.setattr(table, "BACKENDS", both)
    with pytest.raises(BundleError, match="every backend refused: one: weights of another"):
        open_backend(bundle, "auto")


OPEN = """
import json, sys
from pathlib import Path
from export.backends.opening import open_backend
from export.bundle import open_bundle
opened = open_backend(open_bundle(Path(sys.argv[1])), "auto")
print(json.dumps({"choice": opened.choice, "note": opened.ranking.note,
                  "refused": {a.name: a.reason for a in opened.tried}}))
"""


def opened_anew(compiled: Path, path: str = "") -> dict[str, Any]:
    """What another process opens, whose numba keeps its code in a folder of its own."""
    places = os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH", ""), os.getcwd())))
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(DEMO)],
        env=os.environ | {"NUMBA_CACHE_DIR": str(compiled), "PYTHONPATH": places},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_damaged_cache_of_compiled_code_costs_no_start(tmp_path: Path, cache: Path) -> None:
    compiled = tmp_path / "compiled"
    assert opened_anew(compiled)["refused"] == {}
    for file in compiled.rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:100])
    told = opened_anew(compiled)
    assert told["choice"] == CPU
    assert "its cache is damaged" in told["refused"][COMPILED]
    assert "may the next" in told["note"]


def test_a_numba_that_does_not_load_costs_no_start(tmp_path: Path) -> None:
    """As where numpy is newer than it knows."""
    (tmp_path / "numba").mkdir()
    text = "raise ImportError('Numba needs NumPy 2.3 or less. Got NumPy 2.4.')"
    (tmp_path / "numba" / "__init__.py").write_text(text)
    told = opened_anew(tmp_path / "compiled", str(tmp_path))
    assert told["choice"] == CPU
    assert "does not load: Numba needs NumPy" in told["refused"][COMPILED]
