"""The room with a decoder's folder: influence, and directions that come from it."""

from __future__ import annotations

import numpy as np

from export.bundle import open_bundle
from export.shipped import bundle_path
from service.page.room import Room
from streams.clock import MonotonicClock
from streams.simulation.cortex import population_on
from streams.simulation.openloop import record_open_loop
from tests.page.messages import decode

WITHIN_S, STEP_S = 60.0, 0.25
T0_S = 1000.0
BUNDLE = open_bundle(bundle_path("shipped:demo"))


def shown(room: Room, *, seconds: float) -> None:
    """Play a simulated session to the room until it knows the influences."""
    session = record_open_loop(1, 7, seconds / 60.0, seed=105)
    spikes, clock = session.spikes, MonotonicClock()
    t_s = T0_S + spikes.t_us * 1e-6
    room.keys = list(session.unit_keys)
    for k in range(1, round(seconds / STEP_S)):
        now_s = T0_S + k * STEP_S
        room.take(decode(now_s, k, checksum=BUNDLE.manifest.id, lead_s=0.1))
        new = (t_s > now_s - STEP_S) & (t_s <= now_s)
        room.raster.advance(now_s)
        room.add_spikes(spikes.unit[new], t_s[new], spikes.count[new])
        room.tick(now_s)
    t_end_s = clock.now() + WITHIN_S
    while room.influence.shares(room.keys) is None and clock.now() < t_end_s:
        clock.sleep_until(clock.now() + 0.05)


def test_units_are_sorted_by_the_direction_in_which_they_push() -> None:
    room = Room(T0_S, BUNDLE)
    try:
        shown(room, seconds=15.0)
        found = room.influence.directions(room.keys)
        assert found is not None
        angle, is_told = found
        population = population_on(1, 7, 96)
        told = np.flatnonzero(is_told)
        assert 30 < len(told) < 96
        assert (population.gain[told] > 0.0).mean() > 0.85
        off = np.angle(np.exp(1j * (angle[told] - population.direction[told])))
        assert np.degrees(np.median(np.abs(off))) < 30.0
        room.tick(T0_S + 30.0)
        order = room.rows["direction"].order
        of_told = angle[order[is_told[order]]]
        assert (np.diff(of_told) >= 0.0).all()
        slow = room.slow(T0_S + 30.0)
        assert len(slow["units"]["polar"]) == len(told)
        assert sum(slow["map"]["values"]) > 0.99
    finally:
        room.influence.close()


def test_without_the_decoders_folder_directions_are_the_tunings() -> None:
    room = Room(T0_S)
    assert room.influence.directions(["ch1/u1"]) is None
    assert "--bundle" in room.slow(T0_S)["map"]["note"]
