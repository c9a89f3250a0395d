"""The Blackrock bridge against a stand-in for `pycbsdk.Session`: no device, no nPlay was here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from streams.bridges.blackrock import BlackrockSource, open_session
from streams.errors import StreamAbsentError
from tests.bridges.rig import Rig, clock

BEGUN_NS = 7_000_000_000_000


@dataclass(frozen=True)
class Header:
    time: int
    chid: int
    type: int


class Session:
    """Has the names and the units that pycbsdk 10.3 documents; spikes come from another thread."""

    def __init__(self) -> None:
        self._begun_s, self._call = clock.now(), None
        self.is_closed = False
        self._stop = threading.Event()
        self.sent: list[tuple[int, int]] = []
        self._thread = threading.Thread(target=self._run)

    @property
    def time(self) -> int:
        return BEGUN_NS + int((clock.now() - self._begun_s) * 1e9)

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


def test_where_pycbsdk_is_missing_it_says_so() -> None:
    with pytest.raises(StreamAbsentError, match="pip install pycbsdk"):
        open_session("HUB1")
