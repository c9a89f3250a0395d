"""The run: a daemon, its sender, a client, and what the operator and fate do to them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.recorded_run.breakable import NAME, SWITCH
from export.bundle import open_bundle
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from service.bench.rig import SERVED_HERE, Rig, write_config
from service.bench.sender import unit_keys
from service.errors import ServiceError
from streams.clock import MonotonicClock
from streams.errors import StreamsError
from streams.wire.client import DaemonClient
from streams.wire.sockets import DecodeSubscriber

WITHIN_S = 120.0
BRIEF_S = 1.0
N_WAITS, SWAPS_AT_MOST = 8, 10
_RUN = (
    "import sys; import benchmarks.recorded_run.breakable; "
    "from service.cli import main; sys.exit(main(sys.argv[1:]))"
)


class BenchError(ServiceError):
    """The run did not go as it should."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A run to be made.

    Attributes:
        seconds: how long, about.
        n_units, rate_hz: units, and spikes per second of each.
        hop_s: between beats.
        part_mb: of the recording's parts.
        token_cap: tokens a beat at most; None for no cap.
        folder: of the recordings.
    """

    seconds: float
    n_units: int
    rate_hz: float
    hop_s: float
    part_mb: float
    token_cap: int | None
    folder: Path


@dataclass(slots=True)
class Heard:
    """What a client heard of the run.

    Attributes:
        raw_of_seq: `value_raw` of each decode.
        first_s, newest_s: ends of the first and the newest window.
        backend: that made the newest.
        n_late, skipped: late decodes; beats skipped.
        events: their names, and when.
    """

    raw_of_seq: dict[int, Any] = field(default_factory=dict)
    first_s: float | None = None
    newest_s: float = 0.0
    backend: str = ""
    n_late: int = 0
    skipped: int = 0
    fates: dict[str, int] = field(default_factory=dict)
    events: list[tuple[str, float]] = field(default_factory=list)
    validities: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long decodes were heard."""
        return self.newest_s - (self.newest_s if self.first_s is None else self.first_s)


class Scenario:
    """One run, from the first decode to kill -9.

    Args:
        rig: its processes.
        asked: the run.
        say: is told what happens, a line each.
    """

    def __init__(self, rig: Rig, asked: Asked, say: Callable[[str], None]) -> None:
        self._rig, self._asked, self._say = rig, asked, say
        self._clock, self.heard = MonotonicClock(), Heard()
        self._break, self._outage = rig.path / "break", rig.path / "outage"

    def play(self) -> Heard:
        """Play it; the daemon and its guardian are killed at the end."""
        asked, name = self._asked, f"spikeloop-recorded-{os.getpid()}"
        bundles = [self._bundle("first", 0), self._bundle("second", 1)]
        sender = [sys.executable, "-m", "benchmarks.recorded_run.sender", name]
        numbers = [str(asked.n_units), str(asked.rate_hz), str(self._outage)]
        self._rig.run("sender", [*sender, *numbers])
        endpoints = self._serve(name, bundles[0])
        self._subscriber = DecodeSubscriber(
            endpoints["decode"], ("decode", "event", "heartbeat", "shadow")
        )
        self._client = DaemonClient(endpoints["control"], timeout_s=20.0)
        try:
            self._until(lambda: "ok" in self.heard.validities)
            if self.heard.backend != NAME:
                raise BenchError(f"{NAME} was refused: is the machine too busy?")
            self._play_steps(bundles[1])
        finally:
            self._kill()
            self._listen(0.2)
            self._subscriber.close()
        return self.heard

    def _play_steps(self, other: Path) -> None:
        wait_s = max(0.3, self._asked.seconds / N_WAITS)
        self._listen(wait_s)
        self._do("pause")
        self._listen(BRIEF_S)
        self._do("resume")
        self._listen(wait_s)
        self._do("shape", gain=0.8, smoothing=0.3)
        self._listen(wait_s)
        self._swap(other)
        self._listen(wait_s)
        self._say("the source goes")
        self._outage.touch()
        self._until_event("source_lost")
        self._listen(BRIEF_S)
        self._outage.unlink()
        self._until_event("source_back")
        self._listen(wait_s)
        self._say("the backend breaks")
        self._break.touch()
        self._until_event("fell_back")
        self._listen(wait_s)
        self._break.unlink()
        self._do("rollback")
        self._listen(wait_s)
        self._do("shape", gain=1.2, smoothing=0.5)
        self._listen(wait_s)
        self._say("kill -9")

    def _swap(self, other: Path) -> None:
        """Swap, again where the decoder in shadow was not ok or too slow just then."""
        for _ in range(SWAPS_AT_MOST):
            self._do("swap", bundle=str(other), shadow_s=BRIEF_S)
            if self._until_event("promote", "refused") == "promote":
                return
            self._say("it was refused")
            self._listen(BRIEF_S)
        raise BenchError(f"the swap was refused {SWAPS_AT_MOST} times")

    def _bundle(self, name: str, seed: int) -> Path:
        asked, path = self._asked, self._asked.folder / "bundles" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            derive_bundle(
                open_bundle(bundle_path("shipped:demo")), path,
                unit_keys=unit_keys(asked.n_units), hop_s=asked.hop_s, bin_s=asked.hop_s,
                name=name, seed=seed,
            )  # fmt: skip
        return path

    def _serve(self, name: str, bundle: Path) -> dict[str, Any]:
        asked, path = self._asked, self._rig.path
        config = {
            **SERVED_HERE,
            "input.name": name,
            "input.budget_spikes_per_s": max(50_000, round(2 * asked.n_units * asked.rate_hz)),
            "decoder.bundle": str(bundle),
            "decoder.backend": NAME,
            "decoder.fallback": ["onnxruntime-cpu"],
            "output.lsl_name": f"{name}-decodes",
            "record.enabled": True,
            "record.folder": str(asked.folder / "recordings"),
            "record.part_mb": asked.part_mb,
        }
        if asked.token_cap is not None:
            config["beat.token_cap"] = asked.token_cap
        write_config(path / "daemon.toml", config)
        os.environ[SWITCH] = str(self._break)
        announced = path / "daemon.json"
        self._rig.run(
            "daemon",
            [sys.executable, "-c", _RUN, "serve", str(path / "daemon.toml"), "--log", "json",
             "--announce", str(announced)],
        )  # fmt: skip
        return self._rig.wait_for_file(announced, "daemon")

    def _kill(self) -> None:
        """Kill the daemon, and its guardian, which would start another; not the recorder."""
        daemon = self._rig.pids().get("daemon")
        if daemon is not None:
            os.killpg(os.getpgid(daemon), signal.SIGKILL)

    def _do(self, command: str, **arguments: Any) -> None:
        self._say(f"{command} {arguments or ''}".rstrip())
        t_end_s = self._clock.now() + WITHIN_S
        while True:
            try:
                self._client.ask(command, **arguments)
                return
            except StreamsError:
                if self._clock.now() > t_end_s:
                    raise
                self._listen(0.1)

    def _until_event(self, *events: str) -> str:
        """Listen until one of these events comes; which."""
        n_before, found = len(self.heard.events), list[str]()

        def has_come() -> bool:
            found[:] = [name for name, _ in self.heard.events[n_before:] if name in events]
            return bool(found)

        self._until(has_come)
        return found[0]

    def _until(self, holds: Callable[[], bool]) -> None:
        t_end_s = self._clock.now() + WITHIN_S
        while not holds():
            self._rig.check("daemon")
            if self._clock.now() > t_end_s:
                told = ", ".join(name for name, _ in self.heard.events)
                raise BenchError(f"nothing within {WITHIN_S:g} s; events so far: {told}")
            self._take(0.05)

    def _listen(self, seconds: float) -> None:
        t_end_s = self._clock.now() + seconds
        while (left_s := t_end_s - self._clock.now()) > 0:
            self._take(left_s)

    def _take(self, most_s: float) -> None:
        received = self._subscriber.receive(most_s)
        if received is None:
            return
        (topic, fields), heard = received, self.heard
        if topic == "decode":
            heard.raw_of_seq[fields["seq"]] = fields["value_raw"]
            heard.newest_s = fields["t_window"]
            heard.first_s = heard.newest_s if heard.first_s is None else heard.first_s
            heard.backend = fields["backend"]
            heard.n_late += fields["late"]
            heard.skipped = fields["beats_skipped"]
            validity = fields["validity"]
            heard.validities[validity] = heard.validities.get(validity, 0) + 1
        elif topic == "heartbeat":
            heard.fates = fields["fates"]
        elif topic == "event":
            heard.events.append((fields["event"], fields["t_sent"]))
