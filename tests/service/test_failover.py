"""A backend failed: the beat says so, and only the decoder's own spare takes its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.backends.onnxruntime_cpu import open_cpu
from export.backends.opening import open_backend
from export.bundle import DecoderBundle
from export.errors import BackendError
from service.deploy import failover as failover_module
from service.deploy.failover import Failover
from service.loop.commands import RefusedError
from service.loop.decoder import Decoder
from service.loop.shaping import Shaper
from service.loop.slots import DecoderSlot
from service.loop.validity import ValidityJudge
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import BeatRig

CPU = "onnxruntime-cpu"


def slot_of(bundle: DecoderBundle, rig: BeatRig) -> DecoderSlot:
    manifest = bundle.manifest
    decoder = Decoder(manifest, open_cpu(bundle), bundle.row_of_key, rig.source_keys)
    decoder.k_reset = decoder.last_k = rig.loop.last_k
    judge = ValidityJudge(manifest.context_s, manifest.stale_after_s, 0.05, manifest.hop_s)
    return DecoderSlot(decoder, judge, Shaper(manifest.outputs))


def break_memory(rig: BeatRig) -> None:
    """Let ONNX Runtime refuse the next steps: a memory of another width."""
    for binding in rig.backend._bindings:
        binding.bind_cpu_input("memory_h", np.zeros((1, 3), np.float32))


def test_a_failing_step_wakes_the_failover(rig: BeatRig) -> None:
    k = rig.warm()
    assert not rig.loop.backend_failed.is_set()
    break_memory(rig)
    decode = rig.fed_turn(k + 1)
    assert (decode.validity, decode.reason) == ("fault", "backend_error")
    assert rig.loop.backend_failed.is_set()
    assert isinstance(rig.decoder.failure, BackendError)


def test_its_spare_takes_over_at_the_next_beat_and_runs_what_it_missed(
    rig: BeatRig, bundle: DecoderBundle
) -> None:
    whole = BeatRig(bundle)
    k = rig.warm()
    whole.warm()
    spare = slot_of(bundle, rig)
    for held_k, spikes in list(rig.loop.slots.recent)[:-3]:
        window, _ = spare.decoder.cut(
            spikes, rig.loop.schedule.end_us(held_k), rig.loop.schedule.window_end_s(held_k)
        )
        spare.decoder.run(window, held_k, rig.loop.lead_s)
    spare.decoder.k_reset = 0
    command = rig.ask("fell_back", slot=spare)
    decode, expected = rig.fed_turn(k + 1), whole.fed_turn(k + 1)
    assert command.error == ""
    assert decode.validity == "ok"
    assert rig.loop.decoder is spare.decoder
    np.testing.assert_allclose(decode.value_raw["velocity"], expected.value_raw["velocity"])


def test_the_spare_of_another_decoder_does_not(rig: BeatRig, tmp_path: Path) -> None:
    k = rig.warm()
    other = write_tiny_bundle(tmp_path / "other", ("u3", "u1"), seed=4)
    command = rig.ask("fell_back", slot=slot_of(other, rig))
    rig.fed_turn(k + 1)
    assert command.error == "another decoder took over meanwhile"
    assert rig.loop.decoder is rig.decoder


def failover_of(
    rig: BeatRig,
    told: list[tuple[str, dict[str, Any]]],
    warm_up: Callable[[], object] = lambda: None,
) -> Failover:
    return Failover(
        rig.loop,
        lambda bundle, opened: warm_up() or slot_of(bundle, rig),
        lambda event, detail: told.append((event, detail)),
        open_most_s=60.0,
    )


def test_the_spare_is_the_next_in_the_list_that_opens(rig: BeatRig, bundle: DecoderBundle) -> None:
    failover = failover_of(rig, [])
    failover.prepare(bundle, open_backend(bundle, CPU, ["tensorrt", "torch-cuda", CPU]))
    assert failover.spare == CPU
    assert set(failover.refused) == {"tensorrt", "torch-cuda"}


def test_no_fallback_that_opens_is_told(rig: BeatRig, bundle: DecoderBundle) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    failover = failover_of(rig, told)
    failover.prepare(bundle, open_backend(bundle, CPU, ["tensorrt"]))
    assert failover.spare == ""
    assert told[0][0] == "fallback_refused"
    assert "no NVIDIA GPU" in told[0][1]["warning"]


def test_a_backend_that_takes_so_many_tokens_caps_them(bundle: DecoderBundle) -> None:
    backend = open_cpu(bundle)
    backend.n_most_tokens = 100
    manifest, rows = bundle.manifest, bundle.row_of_key
    assert Decoder(manifest, backend, rows, []).tokenizer.token_cap == 100
    assert Decoder(manifest, backend, rows, [], 40).tokenizer.token_cap == 40
    assert Decoder(manifest, backend, rows, [], 400).tokenizer.token_cap == 100


def test_a_spare_whose_warm_up_is_refused_is_tried_again(
    rig: BeatRig, bundle: DecoderBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    refusals = [RefusedError("damaged"), MemoryError()]

    def warm_up() -> None:
        if refusals:
            raise refusals.pop(0)

    failover = failover_of(rig, told, warm_up)
    failover.prepare(bundle, open_backend(bundle, CPU, [CPU]))
    k = rig.warm()
    break_memory(rig)
    rig.fed_turn(k + 1)
    for expected in (RefusedError, None, MemoryError):
        monkeypatch.setattr(failover_module, "RETRY_S", 1e6 if expected is None else 0.0)
        if expected is None:  # beats go on failing, and are too many to try it at each
            failover._take_over()
            continue
        with pytest.raises(expected):
            failover._take_over()
        assert failover.spare == CPU
    asked: list[Any] = []
    monkeypatch.setattr(rig.loop.commands, "ask", asked.append)
    failover._take_over()
    assert [command.change for command in asked] == ["fell_back"]
    assert [event for event, _ in told] == ["backend_failed"]


def test_where_the_decoders_lie_that_run(
    rig: BeatRig, bundle: DecoderBundle, tmp_path: Path
) -> None:
    failover = failover_of(rig, [])
    other = write_tiny_bundle(tmp_path / "other", ("u3", "u1"), seed=4)
    for one in (other, bundle):
        failover.prepare(one, open_backend(one, CPU, [CPU]))
    assert failover.paths_in_use() == [bundle.path.resolve()]
    rig.loop.slots.shadow = slot_of(other, rig)
    assert set(failover.paths_in_use()) == {bundle.path.resolve(), other.path.resolve()}
