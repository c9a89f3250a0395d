"""Each panel tells what the messages say."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest

from service.page.panels.decoded import DecodedPanel
from service.page.panels.events import EventsPanel
from service.page.panels.latency import LatencyPanel
from service.page.panels.spikes import SpikesPanel
from service.page.panels.trials import TrialsPanel
from service.page.panels.tuning import BIN_S, Tuning
from service.page.panels.validity import ValidityPanel
from service.page.room import Room
from tests.page.messages import decode, event, heartbeat, timing

T0_S = 1000.0
HOP_S = 0.02


def test_validity_before_the_first_decode_says_what_is_waited_for():
    told = ValidityPanel().fast(T0_S, "no daemon answered")
    assert told["validity"] == "silent"
    assert told["words"] == "no daemon answered"
    assert told["remedy"] == "is the daemon running?"


def test_validity_is_that_of_the_newest_decode_until_none_comes():
    panel = ValidityPanel()
    panel.take(heartbeat(T0_S))
    panel.take(decode(T0_S, 1, validity="stale", reason="no_spikes"))
    stale = panel.fast(T0_S + 0.1, "")
    assert stale["validity"] == "stale"
    assert stale["words"].startswith("no spikes")
    assert stale["remedy"] == "is the amplifier's program running?"
    panel.take(decode(T0_S + 0.2, 2))
    assert panel.fast(T0_S + 0.21, "")["validity"] == "ok"
    silent = panel.fast(T0_S + 1.2, "")
    assert silent["validity"] == "silent"
    assert "1.0 s" in silent["words"]
    panel.take(decode(T0_S + 1.3, 3, validity="paused", reason="stopping"))
    ended = panel.fast(T0_S + 5.3, "")
    assert ended["validity"] == "silent"
    assert ended["words"] == "the daemon ended 4.0 s ago, as it was asked to"


def test_in_a_recorded_run_nothing_can_be_done_about_silence():
    panel = ValidityPanel(is_live=False)
    assert panel.fast(T0_S, "")["words"] == "before the run's first decode"
    panel.take(decode(T0_S, 1))
    silent = panel.fast(T0_S + 4.0, "")
    assert (silent["validity"], silent["remedy"]) == ("silent", "")


def test_time_in_service_counts_from_the_runs_start_or_from_the_swap():
    panel = ValidityPanel()
    panel.take(heartbeat(T0_S, hop_ms=20.0))
    panel.take(decode(T0_S, 500))
    assert panel.slow(T0_S)["in_service_s"] == pytest.approx(10.0)
    panel.take(decode(T0_S + 1.0, 550, checksum="another"))
    assert panel.slow(T0_S + 3.0)["in_service_s"] == pytest.approx(2.0)


def test_latency_tells_stages_rules_and_the_last_miss():
    panel = LatencyPanel()
    for beat in range(1, 200):
        t_s = T0_S + beat * HOP_S
        is_late = beat == 150
        panel.take(decode(t_s, beat, late=is_late))
        # The graph took 40 ms more in that beat.
        more = {"t_done": t_s + 37e-3, "t_sent": t_s + 38e-3, "t_out": t_s + 39e-3}
        panel.take(timing(t_s, beat, **(more if is_late else {})))
    told = panel.slow(T0_S + 200 * HOP_S, HOP_S)
    assert [name for name, *_ in told["stages"]][:2] == ["wait for spikes", "wake"]
    assert told["stages"][0][1] == pytest.approx(0.5, abs=0.01)
    assert told["missed"] == 1
    assert told["cut_by"] == {"watermark": 1.0}
    assert told["last_miss"]["ago_s"] == pytest.approx(50 * HOP_S)
    assert "beat 150 (late): the graph" in told["last_miss"]["told"]
    assert told["band"][-1][1] == pytest.approx(5.0, abs=0.1)


def test_a_daemon_on_another_machine_has_another_clock():
    panel = LatencyPanel()
    for beat in range(1, 60):
        t_s = T0_S + beat * HOP_S
        panel.take(decode(t_s, beat)._replace(t_s=t_s + 5e5 + 1e-3 * (beat % 3)))
        panel.take(timing(t_s, beat))
    told = panel.slow(T0_S + 5e5 + 60 * HOP_S, HOP_S)
    # 3 ms to sending, and 0 to 2 on the way.
    assert told["band"][-1][1] == pytest.approx(4.0, abs=0.1)
    assert told["stages"][-1][1] == pytest.approx(0.0, abs=1.1)


def test_skipped_beats_are_missed_beats():
    panel = LatencyPanel()
    for beat, skipped in ((1, 0), (2, 0), (6, 3), (7, 3)):
        panel.take(decode(T0_S + beat * HOP_S, beat, beats_skipped=skipped))
        panel.take(timing(T0_S + beat * HOP_S, beat))
    told = panel.slow(T0_S + 0.2, HOP_S)
    assert told["missed"] == 3
    assert "after 3 skipped" in told["last_miss"]["told"]


def test_spikes_are_rates_of_two_heartbeats():
    panel = SpikesPanel()
    fates = heartbeat(T0_S).message["fates"]
    more = {name: n + 10 * (i + 1) for i, (name, n) in enumerate(fates.items())}
    panel.take(heartbeat(T0_S, spikes_in=1000))
    panel.take(heartbeat(T0_S + 2.0, spikes_in=3000, fates=more))
    told = panel.slow(T0_S + 2.0)
    assert told["rate"] == [[0.0, 1000.0]]
    assert list(told["fates_per_s"].values()) == [5.0 * (i + 1) for i in range(len(fates))]


def test_another_run_begins_new_counters():
    panel = SpikesPanel()
    panel.take(heartbeat(T0_S, spikes_in=1000))
    panel.take(heartbeat(T0_S + 1.0, spikes_in=5, run_id="another"))
    assert panel.slow(T0_S + 1.0)["rate"] == []


def test_r2_of_decodes_against_a_moving_cursor():
    panel, rng = DecodedPanel(), np.random.default_rng(0)
    panel.open_positions(["cursor_x", "cursor_y", "target_x", "target_y"])
    t_s = T0_S + np.arange(0, 20, 0.01)
    at = np.stack([10 * np.sin(t_s), 10 * np.cos(t_s), np.full_like(t_s, 3), t_s * np.nan], 1)
    panel.add_positions(at, t_s)
    for beat in range(1, 900):
        t_window = T0_S + 1 + beat * HOP_S
        true = np.array([10 * math.cos(t_window), -10 * math.sin(t_window)])
        x, y = true + [0.0, 5.0] * rng.standard_normal(2)
        panel.take(decode(t_window + 5e-3, beat, value={"velocity": [x, y]}))
    told = panel.slow(T0_S + 20.0)
    # Noise of 5 against an amplitude of 10: 1 - 25 / 50.
    assert told["r2"]["velocity"][0] > 0.99
    assert told["r2"]["velocity"][1] == pytest.approx(0.5, abs=0.1)
    assert told["outputs"] == [["velocity", 2, "cm/s"]]
    fast = panel.fast(T0_S + 20.0)
    assert fast["target"] is None
    assert fast["cursor"] == pytest.approx(at[-1, :2], abs=1e-3)
    assert panel.fast(T0_S + 20.0)["decoded"] == []


def test_trials_are_told_in_bits_a_second():
    """Eight targets at 10 cm and a second each; every endpoint off by 1 cm, to and fro."""
    place = {}
    panel = TrialsPanel(lambda t_s: place.get(t_s))
    for i in range(16):
        angle = 2 * math.pi * i / 8
        x, y = 10 * math.cos(angle), 10 * math.sin(angle)
        reach = 1.1 if i % 2 else 0.9
        place |= {T0_S + i: [0.0, 0.0], T0_S + i + 1.0: [reach * x, reach * y]}
        panel.take(f"trial_start i={i} x={x:.3f} y={y:.3f}", T0_S + i)
        panel.take("target_entered i=3", T0_S + i + 0.5)
        panel.take(f"trial_stop i={i} success={int(i != 0)}", T0_S + i + 1.0)
    told = panel.slow()
    assert (told["n"], told["n_success"]) == (16, 15)
    assert told["grid_bits_per_s"] == pytest.approx(math.log2(7) * (15 - 1) / 16)
    spread = np.std([1.0 if i % 2 else -1.0 for i in range(1, 16)], ddof=1)
    assert told["fitts_bits_per_s"] == pytest.approx(math.log2(10 / (4.133 * spread) + 1), rel=0.01)


def test_trials_say_nothing_of_bits_before_there_are_some():
    panel = TrialsPanel(lambda t_s: None)
    panel.take("trial_stop i=0 success=1", T0_S)
    panel.take("trial_start", T0_S)
    panel.take("trial_stop success=1", T0_S + 1)
    assert panel.slow() == {
        "n": 1, "n_success": 1, "over": 1, "fitts_bits_per_s": None, "grid_bits_per_s": None,
    }  # fmt: skip


def test_tuning_finds_preferred_directions_and_leaves_out_the_untuned():
    tuning, rng = Tuning(), np.random.default_rng(1)
    angle = np.linspace(-3, 3, 12)
    for _ in range(1200):
        velocity = 10 * rng.standard_normal(2)
        depth = np.cos(angle) * velocity[0] + np.sin(angle) * velocity[1]
        rate_hz = np.concatenate([np.maximum(0, 20 + depth), np.full(4, 20.0)])
        tuning.add(rng.poisson(rate_hz * BIN_S).astype(float), velocity)
    found, is_tuned, _ = tuning.directions()
    assert is_tuned[:12].all()
    assert is_tuned[12:].sum() <= 1
    apart = np.angle(np.exp(1j * (found[:12] - angle)))
    assert np.abs(apart).max() < 0.3


def test_tuning_is_not_known_while_nothing_moves():
    tuning = Tuning()
    for _ in range(500):
        tuning.add(np.ones(3), np.zeros(2))
    assert not tuning.directions()[1].any()


def test_events_say_what_happened_and_when():
    panel = EventsPanel()
    panel.take(event(T0_S, "mark", text="block 2"))
    panel.take(event(T0_S + 1, "settled", settle_ms=9.25, warning="it had to grow"))
    panel.take(event(T0_S + 2, "promote", decoder_id="mine", checksum="9c1e"))
    panel.mark_validity(T0_S, "ok")
    panel.mark_validity(T0_S + 1, "ok")
    panel.mark_validity(T0_S + 2, "stale")
    told = panel.slow(T0_S + 2)
    assert [one["told"] for one in told["events"]] == [
        "block 2",
        "it had to grow",
        "mine is in service",
    ]
    assert [one["level"] for one in told["events"]] == ["note", "warning", "note"]
    assert [one["t"] for one in told["events"]] == [-2.0, -1.0, 0.0]
    assert [stretch[2] for stretch in told["stretches"]] == ["ok", "stale"]


def test_all_that_browsers_are_sent_can_be_sent():
    room = Room(T0_S)
    room.keys = [f"ch{i}/u0" for i in range(5)]
    for beat in range(1, 100):
        t_s = T0_S + beat * HOP_S
        for heard in (decode(t_s, beat), timing(t_s, beat, t_due=np.float64(t_s))):
            room.take(heard)
        room.add_spikes(np.arange(5), np.full(5, t_s), np.ones(5, int))
        fast = room.tick(t_s)
    room.take(heartbeat(t_s))
    room.take(event(t_s, "mark", text="x"))
    assert json.loads(msgspec.json.encode(fast))["now"] == pytest.approx(t_s)
    slow = json.loads(msgspec.json.encode(room.slow(t_s)))
    assert slow["latency"]["stages"]
    assert slow["map"]["labels"] == room.keys
    json.loads(msgspec.json.encode(room.rows_told("direction")))
