"""The Intan bridge against an emulator of RHX's TCP sockets."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.bridges.intan import WAVEFORM_MAGIC, IntanSource, WaveformClock, channel_of
from tests.bridges.emulators import RATE_HZ, Rhx, Spike
from tests.bridges.rig import Rig, clock
from tests.system.running import wait_until

BLOCK = 128
RNG = np.random.default_rng(2)


@pytest.fixture
def rhx() -> Iterator[Rhx]:
    emulator = Rhx()
    yield emulator
    emulator.close()


@pytest.fixture
def start(rhx: Rhx) -> Iterator[Callable[..., Rig]]:
    started: list[Rig] = []

    def make(**settings: object) -> Rig:
        ports = (rhx.port, rhx.port + 1, rhx.port + 2)
        started.append(Rig(IntanSource(clock, ports=ports, **settings)))  # type: ignore[arg-type]
        wait_until(lambda: rhx.is_connected)
        return started[-1]

    yield make
    for rig in started:
        rig.close()


class Run:
    """Writes blocks at the pace of the clock, each with some spikes; keeps what it wrote."""

    def __init__(self, rhx: Rhx, first: int = 0) -> None:
        self._rhx, self._next, self._due_s = rhx, first, clock.now()
        self.sent: list[Spike] = []

    def go_on(self, n_blocks: int, n_spikes: int = 2) -> None:
        for _ in range(n_blocks):
            self._due_s += BLOCK / RATE_HZ
            clock.sleep_until(self._due_s)
            samples = np.sort(RNG.integers(self._next, self._next + BLOCK, n_spikes))
            spikes = [
                (int(s), int(RNG.integers(0, 256)), 1 << (i % 3)) for i, s in enumerate(samples)
            ]
            self._rhx.write(self._next, 1, spikes)
            self.sent += spikes
            self._next += BLOCK


@pytest.mark.parametrize("n_signals", [0, 3])
def test_every_spike_leaves_once_in_order_and_with_watermarks(
    rhx: Rhx, start: Callable[..., Rig], n_signals: int
) -> None:
    rhx.n_signals = n_signals
    rig = start()
    run = Run(rhx)
    run.go_on(200)
    rig.until(lambda: len(rig.stamps) >= len(run.sent))
    assert rig.ids.tolist() == [[channel, unit] for _, channel, unit in run.sent]
    assert rig.seq.tolist() == list(range(len(rig.seq)))
    assert len(rig.watermarks) >= 50
    assert rig.passed.n_in == rig.passed.n_out == len(run.sent)
    assert rig.passed.n_refused == rig.passed.n_restarts == 0
    assert rig.n_behind() == rig.passed.n_behind <= rhx.n_held_up


def test_silence_has_watermarks_too(rhx: Rhx, start: Callable[..., Rig]) -> None:
    rig = start()
    Run(rhx).go_on(100, n_spikes=0)
    rig.until(lambda: len(rig.watermarks) >= 30)
    assert len(rig.stamps) == 0


def test_rhx_is_set_up_while_it_stands(rhx: Rhx, start: Callable[..., Rig]) -> None:
    start(channels=["A-000", "B-017"], start=True)
    wait_until(lambda: rhx.settings["runmode"] == "run")
    assert rhx.settings["tcpnumberdatablocksperwrite"] == "1"
    assert rhx.settings["a-000.tcpdataoutputenabledspike"] == "true"
    assert rhx.settings["b-017.tcpdataoutputenabledspike"] == "true"


def test_a_run_that_is_begun_anew_begins_the_clock_anew(
    rhx: Rhx, start: Callable[..., Rig]
) -> None:
    rig = start()
    before = Run(rhx, first=9_000_000)
    before.go_on(40)
    after = Run(rhx)
    after.go_on(60)
    rig.until(lambda: len(rig.stamps) >= len(before.sent) + len(after.sent))
    assert rig.passed.n_restarts == 1
    assert np.all(np.diff(rig.watermarks) > 0)


def test_it_connects_again_where_rhx_hung_up(rhx: Rhx, start: Callable[..., Rig]) -> None:
    rig = start()
    before = Run(rhx)
    before.go_on(40)
    rhx.hang_up()
    wait_until(lambda: rhx.is_connected)
    after = Run(rhx, first=30 * BLOCK + 5 * RATE_HZ)
    after.go_on(300)
    rig.until(lambda: len(rig.stamps) >= len(before.sent) + len(after.sent))
    assert any("hung up" in line for line in rig.told)


@given(
    st.integers(0, 4),
    st.lists(st.integers(1, 2000), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
    st.integers(0, 50),
)
def test_blocks_are_found_however_their_bytes_come(
    n_signals: int, cuts: list[int], first: int, n_before: int
) -> None:
    """The first of them is cut, as where one listens late."""
    frame = np.dtype([("sample", "<u4"), ("signals", "<u2", (n_signals,))])
    blocks = []
    for i in range(6):
        frames = np.zeros(BLOCK, frame)
        frames["sample"] = (first + BLOCK * i + np.arange(BLOCK)) % 2**32
        blocks.append(struct.pack("<I", WAVEFORM_MAGIC) + frames.tobytes())
    sent = b"".join(blocks)[n_before:]
    found, reader, at = [], WaveformClock(), 0
    while at < len(sent):
        size = cuts[at % len(cuts)]
        end = reader.feed(sent[at : at + size])
        found += [] if end is None else [end]
        at += size
    assert found == sorted(found)
    assert found[-1] % 2**32 == (first + 6 * BLOCK) % 2**32


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("A-000", 0),
        ("A-127", 127),
        ("B-000", 128),
        ("h-010", 906),
        ("ANALO", -1),
        ("A-01", 1),
        ("", -1),
    ],
)
def test_native_names_are_numbered_port_after_port(name: str, channel: int) -> None:
    assert channel_of(name) == channel
