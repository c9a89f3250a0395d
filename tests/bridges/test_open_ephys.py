"""The Open Ephys bridge against an emulator of the plugin ZMQ Interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from streams.bridges.open_ephys import OpenEphysSource
from tests.bridges.emulators import RATE_HZ, OpenEphys, Spike
from tests.bridges.rig import Rig, clock

BUFFER = 300
RNG = np.random.default_rng(1)


@pytest.fixture
def gui() -> Iterator[OpenEphys]:
    emulator = OpenEphys(n_channels=2)
    yield emulator
    emulator.close()


@pytest.fixture
def start(gui: OpenEphys) -> Iterator[Callable[..., Rig]]:
    started: list[Rig] = []

    def make(**settings: object) -> Rig:
        started.append(Rig(OpenEphysSource(clock, port=gui.port, **settings)))  # type: ignore[arg-type]
        gui.wait_for_listener()
        return started[-1]

    yield make
    for rig in started:
        rig.close()


class Acquisition:
    """Sends buffers at the pace of the clock, each with some spikes; keeps what it sent."""

    def __init__(self, gui: OpenEphys, first: int = 1_000_000) -> None:
        self._gui, self._next, self._due_s = gui, first, clock.now()
        self.sent: list[Spike] = []
        self.begun_s = clock.now() - first / RATE_HZ

    def go_on(self, n_buffers: int, n_spikes: int = 3) -> None:
        for _ in range(n_buffers):
            self._due_s += BUFFER / RATE_HZ
            clock.sleep_until(self._due_s)
            # A waveform ends 32 samples after its peak: such a spike comes with the next buffer.
            samples = np.sort(RNG.integers(self._next - 32, self._next + BUFFER - 32, n_spikes))
            spikes = [(int(s), int(RNG.integers(1, 97)), int(RNG.integers(0, 4))) for s in samples]
            self._gui.send_buffer(self._next, BUFFER, spikes)
            self.sent += spikes
            self._next += BUFFER


def test_every_spike_leaves_once_in_order_and_with_watermarks(
    gui: OpenEphys, start: Callable[..., Rig]
) -> None:
    rig = start()
    acquisition = Acquisition(gui)
    acquisition.go_on(100)
    gui.send_event(5)
    rig.until(lambda: len(rig.stamps) >= len(acquisition.sent))
    assert rig.ids.tolist() == [[channel, unit] for _, channel, unit in acquisition.sent]
    assert rig.seq.tolist() == list(range(len(rig.seq)))
    assert len(rig.watermarks) >= 50
    assert rig.n_behind() == rig.passed.n_behind == 0
    assert rig.passed.n_in == rig.passed.n_out == len(acquisition.sent)
    assert rig.passed.n_lost == rig.passed.n_refused == 0
    # Stamps keep the device's distances; all are late by the shortest way that a message took.
    told = np.array([sample for sample, _, _ in acquisition.sent]) / RATE_HZ
    ways = rig.stamps - told - acquisition.begun_s
    assert np.ptp(ways[len(ways) // 2 :]) < BUFFER / RATE_HZ
    assert gui.applications


def test_lost_messages_are_counted_and_unreadable_ones_refused(
    gui: OpenEphys, start: Callable[..., Rig]
) -> None:
    rig = start()
    acquisition = Acquisition(gui)
    acquisition.go_on(20)
    gui.lose(7)
    gui.send_raw(b"EVENT\0", b"{", b"")
    gui.send_raw(b"EVENT\0")
    gui.send_raw(b"EVENT\0", b'{"message_num":1,"type":"spike","spike":{}}', b"")
    acquisition.go_on(5)
    rig.until(lambda: rig.passed.n_out >= len(acquisition.sent))
    assert rig.passed.n_lost == 7
    assert rig.passed.n_refused == 3
    assert rig.passed.n_restarts == 0


def test_a_restart_of_the_acquisition_begins_the_clock_anew(
    gui: OpenEphys, start: Callable[..., Rig]
) -> None:
    rig = start()
    before = Acquisition(gui)
    before.go_on(30)
    after = Acquisition(gui, first=0)
    after.go_on(30)
    rig.until(lambda: len(rig.stamps) >= len(before.sent) + len(after.sent))
    assert rig.passed.n_restarts == 1
    assert rig.passed.n_dropped == 0
    assert abs(rig.stamps[-1] - clock.now()) < 5
    assert np.all(np.diff(rig.watermarks) > 0)


def test_electrodes_take_the_number_given_or_that_which_ends_their_name(
    gui: OpenEphys, start: Callable[..., Rig]
) -> None:
    rig = start(electrodes={"left": 7}, stream="probe")
    for i in range(20):
        clock.sleep_until(clock.now() + 0.005)
        gui.send_spike(1000 + i, "left", 1, stream="probe")
        gui.send_spike(1000 + i, "Tetrode 12", 2, stream="probe")
        gui.send_spike(1000 + i, "Electrode 12", 3, stream="probe")
        gui.send_spike(1000 + i, "right", 4, stream="probe")
        gui.send_spike(1000 + i, "Electrode 40", 5, stream="another")
    rig.until(lambda: rig.passed.n_refused >= 40 and len(rig.stamps) >= 40)
    assert {tuple(one) for one in rig.ids.tolist()} == {(7, 1), (12, 2)}
    rig.until(lambda: len(rig.told) >= 2)
    assert any("'Electrode 12'" in line and "'Tetrode 12'" in line for line in rig.told)
    assert any("'right'" in line and "no number" in line for line in rig.told)


def test_without_a_ticked_channel_spikes_leave_without_watermarks(
    gui: OpenEphys, start: Callable[..., Rig]
) -> None:
    rig = start()
    for i in range(30):
        gui.send_spike(RATE_HZ * i // 100, "Electrode 1", 0)
        clock.sleep_until(clock.now() + 0.01)
    rig.until(lambda: len(rig.stamps) >= 30)
    assert len(rig.watermarks) == 0
