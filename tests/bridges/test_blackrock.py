"""The Blackrock bridge: pycbsdk against an emulator of nPlayServer, and a stand-in for its Session.

No device was here, and no nPlayServer.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streams.bridges import blackrock
from streams.bridges.blackrock import BlackrockSource, open_session
from streams.errors import StreamAbsentError
from tests.bridges.emulators import RATE_HZ, WAVE_REST, Nplay
from tests.bridges.rig import Rig, clock

BEGUN_NS = 7_000_000_000_000


@dataclass(frozen=True)
class Header:
    time: int
    chid: int
    type: int


class Session:
    """Has the names and the units that pycbsdk 10.3 documents; spikes come from another thread."""

    def __init__(self, *, stands_still: bool = False) -> None:
        self._begun_s, self._call = clock.now(), None
        self._stands_still = stands_still
        self.is_closed = False
        self._stop = threading.Event()
        self.sent: list[tuple[int, int]] = []
        self._thread = threading.Thread(target=self._run)

    @property
    def time(self) -> int:
        gone_s = 0.0 if self._stands_still else clock.now() - self._begun_s
        return BEGUN_NS + int(gone_s * 1e9)

    def on_event(self, channel_type: Any) -> Callable[[Any], Any]:
        assert channel_type == "FRONTEND"

        def register(call: Any) -> Any:
            self._call = call
            self._thread.start()
            return call

        return register

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.is_closed = True

    def _run(self) -> None:
        for i in range(60):
            self._stop.wait(0.005)
            self.sent.append((1 + i % 96, i % 4))
            assert self._call is not None
            self._call(Header(self.time - 1_600_000, *self.sent[-1]), b"")  # the waveform is whole


def test_every_spike_leaves_once_with_watermarks() -> None:
    session = Session()
    rig = Rig(BlackrockSource(clock, session))
    rig.until(lambda: len(rig.stamps) >= 60)
    assert rig.ids.tolist() == [list(one) for one in session.sent]
    assert len(rig.watermarks) > 20
    assert rig.n_behind() == rig.passed.n_behind
    rig.close()
    assert session.is_closed


def test_a_spike_leaves_though_the_devices_time_stands_still() -> None:
    session = Session(stands_still=True)
    source = BlackrockSource(clock, session)
    seen = [tuple(one) for _ in range(200) for b in source.read(0.01) for one in b.ids.tolist()]
    session.close()
    assert seen == session.sent


def test_where_pycbsdk_is_missing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycbsdk", None)
    with pytest.raises(StreamAbsentError, match="pip install pycbsdk"):
        open_session("HUB1")


def test_a_kernel_that_allows_too_small_a_buffer_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Refusing:
        def __init__(self, device: str) -> None:
            raise RuntimeError("Device connection error")

    monkeypatch.setitem(sys.modules, "pycbsdk", SimpleNamespace(Session=Refusing))
    limit = tmp_path / "rmem_max"
    monkeypatch.setattr(blackrock, "RMEM_MAX", limit)
    limit.write_text("212992\n")
    with pytest.raises(StreamAbsentError, match=r"sysctl -w net\.core\.rmem_max"):
        open_session("HUB1")
    limit.write_text("16777216\n")
    with pytest.raises(StreamAbsentError, match=r"Device connection error$"):
        open_session("HUB1")


def test_pycbsdk_reads_the_emulator_and_every_spike_leaves_once() -> None:
    try:
        from pycbsdk import Session as Real

        Real.version()
    except (ImportError, OSError) as err:
        pytest.skip(f"pycbsdk does not load: {err}")
    if blackrock._hint_of_buffer():
        pytest.skip("the kernel allows no buffer as large as pycbsdk insists on")
    nplay = Nplay()
    sent: list[list[int]] = []
    try:
        rig = Rig(BlackrockSource(clock, open_session("NPLAY")))
        assert nplay.n_configured == 2
        begun_s = clock.now()
        for i in range(300):
            clock.sleep_until(begun_s + i * 1e-3)
            sample = RATE_HZ + 30 * i
            spikes = [(sample - WAVE_REST, 1 + i % 96, i % 6)] if i % 3 else []
            nplay.send(sample, 30, spikes)
            sent += [[channel, unit] for _, channel, unit in spikes]
        rig.until(lambda: len(rig.stamps) >= len(sent))
        assert rig.ids.tolist() == sent
        assert len(rig.watermarks) > 20
        rig.close()
    finally:
        nplay.close()
