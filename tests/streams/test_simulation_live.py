"""The live subject on real outlets and sockets, its time set by a manual clock."""

import json
from pathlib import Path

import pytest

from streams.clock import ManualClock
from streams.errors import SimulationError
from streams.simulation.live import LiveSubject, SubjectOptions, run_subject, shuffled
from streams.wire.sockets import DecodeSubscriber, Publisher


def test_under_hand_control_the_task_runs_and_is_summed_up(tmp_path: Path) -> None:
    options = SubjectOptions(
        control="hand", seconds=12.0, name="test-hand", summary_path=tmp_path / "summary.json"
    )
    clock = ManualClock(500.0)
    summary = run_subject(options, lambda: False, clock)
    assert clock.now() == pytest.approx(512.0)
    assert summary.seconds == pytest.approx(12.0)
    assert summary.targets_acquired >= 4
    assert len(summary.acquisition_s) == summary.targets_acquired
    assert summary.r2_velocity is None
    assert summary.spikes_sent > 12 * 96
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["targets_acquired"] == summary.targets_acquired
    assert written["r2_velocity"] is None


def test_without_a_decoder_the_user_waits_and_the_cortex_goes_on() -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    try:
        options = SubjectOptions(decodes=publisher.endpoint, seconds=5.0, name="test-waiting")
        summary = run_subject(options, lambda: False, ManualClock(10.0))
    finally:
        publisher.close()
    assert summary.engaged_s == 0.0
    assert summary.targets_shown == 0
    assert summary.spikes_sent > 5 * 96


def test_the_first_trustworthy_decode_starts_the_task() -> None:
    publisher, clock = Publisher("tcp://127.0.0.1:*"), ManualClock(10.0)
    subscriber = DecodeSubscriber(publisher.endpoint)
    live = LiveSubject(SubjectOptions(name="test-engaged"), subscriber, clock)

    def published() -> bool:
        decode = {
            "validity": "ok",
            "t_window": clock.now(),
            "lead_s": 0.0,
            "value": {"velocity": [1.0, 0.0]},
        }
        publisher.send(b"decode", json.dumps(decode).encode())
        return live.engaged or clock.now() > 110.0

    try:
        live.run(published)
        assert live.engaged
    finally:
        live.outlets.close()
        subscriber.close()
        publisher.close()


def test_shuffled_units_never_keep_their_key() -> None:
    key_of = shuffled(96, 3)
    assert sorted(key_of.tolist()) == list(range(96))
    assert not any(unit == key for unit, key in enumerate(key_of.tolist()))


def test_a_closed_loop_without_an_address_is_refused() -> None:
    with pytest.raises(SimulationError, match="address of the decodes"):
        run_subject(SubjectOptions(), lambda: True)


def test_an_impossible_assistance_is_refused() -> None:
    with pytest.raises(SimulationError, match="between 0 and 1"):
        run_subject(SubjectOptions(control="hand", assist=1.5), lambda: True)
