"""A daemon decodes for an hour, and each minute a bit of its decoder flips."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rot.process_memory import flip_in, is_telling
from export.backends.opening import open_backend
from export.bundle import open_bundle
from export.memory_check import HoldsArrays
from service.bench.loop import Settings, start_daemon, start_sender
from service.bench.rig import ProcessFailedError, Rig
from streams.clock import MonotonicClock
from streams.exit_codes import ExitCode
from streams.wire.client import DaemonClient
from streams.wire.sockets import DecodeSubscriber

Decode = dict[str, Any]
NOT_HELD = int(ExitCode.BELOW_THRESHOLD)
WITHIN_S, EVENTS_TOLD, TRIES = 60.0, 6, 10_000
SETTINGS = Settings(n_units=96, rate_hz=20.0, hop_s=0.02, seconds=30, block_s=5e-3, priority=0)


@dataclass(frozen=True, slots=True)
class Flip:
    """One flipped bit.

    Attributes:
        what: the array that it lies in.
        n_places: copies in the daemon's memory that were changed.
        stated_s: how long it may stay unnoticed by what the daemon says.
        noticed_s: from the first place to the first decode that is a fault by it.
        n_ok_meanwhile: `ok` decodes in between, which may have come from the damaged array.
        back_s: from there to the first decode that is `ok` again.
    """

    what: str
    n_places: int
    stated_s: float
    noticed_s: float
    n_ok_meanwhile: int
    back_s: float

    @property
    def held(self) -> bool:
        """True if it was noticed in time."""
        return self.noticed_s <= self.stated_s


class Run:
    """The daemon, and what it publishes."""

    def __init__(self, rig: Rig, backend: str, seconds: float) -> None:
        self._clock, stream = MonotonicClock(), f"spikeloop-rot-{os.getpid()}"
        start_sender(rig, stream, SETTINGS, seconds=seconds + 600.0)
        settings = Settings(**{**asdict(SETTINGS), "backend": backend})
        endpoint = start_daemon(rig, "daemon", stream, settings)
        self._decodes = DecodeSubscriber(endpoint)
        self._events = DecodeSubscriber(endpoint, ("event",))
        announced = json.loads((rig.path / "daemon.json").read_text())
        self.pid, self._client = int(announced["pid"]), DaemonClient(announced["control"])
        self._rig = rig
        self.arrays = _arrays(rig.path / "bundle", backend)

    def stated_s(self) -> float:
        """How long the daemon says that damage may hide, and a beat."""
        status = self._client.ask("status")
        return float(status["memory_check"]["within_s"]) + 2e-3 * float(status["hop_ms"])

    def until(self, field: str, value: str) -> list[Decode]:
        """Listen until a decode has this `validity` or `reason`; all decodes to it."""
        heard: list[Decode] = []
        t_end_s = self._clock.now() + WITHIN_S
        while self._clock.now() < t_end_s:
            self._rig.check("daemon")
            received = self._decodes.receive(0.1)
            if received is not None:
                heard.append(received[1])
                if received[1][field] == value:
                    return heard
        told = Counter(decode["reason"] or "ok" for decode in heard)
        raise ProcessFailedError(
            f"none of {len(heard)} decodes was {value!r} within {WITHIN_S:g} s: {dict(told)}; "
            f"the last events: {self._newest_events()}", NOT_HELD,
        )  # fmt: skip

    def _newest_events(self) -> list[Any]:
        """Return the last events, each with its detail."""
        found = deque[Any](maxlen=EVENTS_TOLD)
        while (received := self._events.receive(0.0)) is not None:
            found.append((received[1]["event"], received[1]["detail"]))
        return list(found)

    def keep_on(self, seconds: float) -> None:
        """Read decodes for so long, and those that wait."""
        t_end_s = self._clock.now() + seconds
        while self._decodes.receive(0.1 * (self._clock.now() < t_end_s)) is not None or (
            self._clock.now() < t_end_s
        ):
            pass

    def flip(self, chance: random.Random) -> Flip:
        """Flip a bit, and watch until decodes are `ok` again."""
        self.until("validity", "ok")
        what = chance.choice(sorted(self.arrays))
        content, stated_s = self.arrays[what], self.stated_s()
        self.keep_on(chance.random())
        bits = (chance.randrange(8 * len(content)) for _ in range(TRIES))
        i_bit = next(bit for bit in bits if is_telling(content, bit))
        t_flipped_s = flip_in(self.pid, content, i_bit)
        if not t_flipped_s:
            raise ProcessFailedError(f"the daemon's memory does not hold {what}", NOT_HELD)
        heard = self.until("reason", "memory_damaged")
        fault, again = heard[-1], self.until("validity", "ok")[-1]
        meanwhile = [d for d in heard if d["t_sent"] > t_flipped_s[0] and d["validity"] == "ok"]
        return Flip(
            what, len(t_flipped_s), stated_s, fault["t_sent"] - t_flipped_s[0], len(meanwhile),
            again["t_sent"] - fault["t_sent"],
        )  # fmt: skip


def _arrays(bundle: Path, backend: str) -> Mapping[str, bytes]:
    """The content of each array that the backend holds, of those that can be found."""
    opened = open_backend(open_bundle(bundle), backend).backend
    held = opened.fixed_arrays() if isinstance(opened, HoldsArrays) else {}
    contents = {name: np.ascontiguousarray(array).tobytes() for name, array in held.items()}
    return {name: content for name, content in contents.items() if is_telling(content)}


def rot(seconds: float, every_s: float, backend: str, seed: int, *, as_json: bool) -> bool:
    """Run it, print what came of each bit, and return True if all were noticed in time."""
    clock, chance, flips = MonotonicClock(), random.Random(seed), list[Flip]()
    with Rig() as rig:
        run = Run(rig, backend, seconds)
        t_end_s = clock.now() + seconds
        while clock.now() < t_end_s:
            t_next_s = clock.now() + every_s
            flips.append(run.flip(chance))
            if not as_json:
                sys.stdout.write(_line(flips[-1]))
                sys.stdout.flush()
            run.keep_on(min(t_next_s, t_end_s) - clock.now())
    sys.stdout.write(
        json.dumps([asdict(flip) for flip in flips]) + "\n" if as_json else _sum(flips)
    )
    return bool(flips) and all(flip.held for flip in flips)


def _line(flip: Flip) -> str:
    return (
        f"{flip.what:20} noticed after {flip.noticed_s:.2f} s of {flip.stated_s:.2f} "
        f"stated, {flip.n_ok_meanwhile} `ok` before it; ok again after {flip.back_s:.2f} s\n"
    )


def _sum(flips: list[Flip]) -> str:
    noticed, back = [flip.noticed_s for flip in flips], [flip.back_s for flip in flips]
    return (
        f"{len(flips)} bits: {sum(flip.held for flip in flips)} noticed in the time stated; "
        f"at the latest after {max(noticed):.2f} s, in the median after "
        f"{sorted(noticed)[len(noticed) // 2]:.2f} s; ok again after {max(back):.2f} s at most\n"
    )
