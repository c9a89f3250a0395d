"""The daemon: composes source, ring, decoder and sockets, and runs the beat until told to stop."""

from __future__ import annotations

import gc
import math
import sys
import threading
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.backend_table import kernels_for
from export.backends import open_backend
from export.bundle import DecoderBundle
from export.manifest import Manifest
from service.config import ServeConfig
from service.errors import ConfigError, GuardError
from service.loop.beat import Beat
from service.loop.decoder import Decoder, Seat
from service.loop.deployment import Deployer
from service.loop.flight import FlightRecorder, timing_of
from service.loop.health import UnitHealth
from service.loop.heartbeat import heartbeat_of
from service.loop.ingest import Ingest
from service.loop.outcome import Schedule
from service.loop.outlet import DecodeOutlet
from service.loop.realtime import apply, lift_carriers
from service.loop.settle import SettleTime
from service.loop.shaping import Shaper
from service.loop.source import Arrival, Source
from service.loop.token_cap import CapChange, TokenCap
from service.loop.transfer import Transfers
from service.loop.turns import BeatLoop
from service.loop.unit_numbers import UnitNumbers
from service.loop.validity import ValidityJudge
from service.loop.wait import Wait
from streams.clock import MonotonicClock
from streams.spikes.ring import SpikeRing
from streams.wire.schema import Decode, Event, Heartbeat, encode
from streams.wire.sockets import Publisher

HEARTBEAT_EVERY_S = 1.0
RING_S, OUTGOING_KEPT = 5.0, 1000

_BY_ARRIVAL = (
    'the sender\'s stamps are not used (`stamps = "arrival"`): a spike counts from when it '
    "arrives, so decodes are as late as the sender's program is, which nobody measures, and the "
    "times of spikes within a block are lost"
)
_CAP_BEGAN = (
    "decoding nears its time: spikes above `token_cap` a beat are left out, evenly over units, "
    "until there is room"
)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened, for the log."""

    event: str
    detail: dict[str, Any]


class Daemon:
    """One run of the loop, spikes in to decodes out.

    Args:
        config: what to run.
        bundle: the opened bundle.
        publisher: the bound socket for decodes.

    Raises:
        ConfigError: the config does not fit the bundle.
        BundleError, BackendUnavailableError: no backend runs the bundle.
        StreamsError: no fitting stream.
    """

    def __init__(self, config: ServeConfig, bundle: DecoderBundle, publisher: Publisher) -> None:
        self.config, self.bundle = config, bundle
        self.run_id = uuid.uuid4().hex[:8]
        self.notes: deque[Note] = deque(maxlen=OUTGOING_KEPT)
        self.failure: Exception | None = None
        self._outgoing: deque[tuple[bytes, bytes]] = deque(maxlen=OUTGOING_KEPT)
        self._publisher = publisher
        self._stopping = threading.Event()
        self._clock = MonotonicClock()
        self._inbox: deque[Arrival] = deque()
        self._unit_numbers = UnitNumbers()
        self._check_config()
        manifest = bundle.manifest
        self.opened = open_backend(bundle, config.decoder.backend, config.decoder.fallback)
        keys = tuple(unit.key for unit in manifest.units)
        kernels = kernels_for(self.opened.backend)
        self.source = Source(config.input, keys, self._clock, kernels)
        self._outlet = (
            DecodeOutlet(config.output.lsl_name, manifest.outputs)
            if config.output.lsl_outlet
            else None
        )
        self.schedule = Schedule(self._choose_t0(), round(manifest.hop_s * 1e6))
        self._ingest = Ingest(
            self.source,
            self._clock,
            self.schedule.t0_s,
            self._inbox,
            self.report,
            self.fail,
            by_beat=config.beat.cut == "arrived",
        )
        self.settle = SettleTime(
            config.beat.settle_ms, manifest.hop_s, config.beat.settle_most_ms * 1e-3
        )
        self.beat = self._make_beat(
            Decoder(
                manifest,
                self.opened.backend,
                bundle.row_of_key,
                self.source.keys,
                config.beat.token_cap,
                self.opened.step_p99_s,
                kernels,
            )
        )
        self.loop = self._make_loop()
        self.deployer = Deployer(
            config, self.beat, self.source.keys, self.source.keep_alive_every_s, self.report
        )
        self.deployer.failover.prepare(bundle, self.opened)
        self.transfers = Transfers(Path(config.decoder.incoming))
        self.beat.lineup.on_change = self._changed
        self.health = self._health_of(manifest)
        self.flight = FlightRecorder(manifest.hop_s)

    def _check_config(self) -> None:
        hop_ms, manifest = self.config.beat.hop_ms, self.bundle.manifest
        if hop_ms is not None and not math.isclose(hop_ms, manifest.hop_s * 1e3):
            raise ConfigError(
                f"beat.hop_ms is {hop_ms:g}, but bundle {manifest.name!r} was made for a hop of "
                f"{manifest.hop_s * 1e3:g} ms; leave the key out to take the bundle's"
            )
        settle_ms, lead_s = self.config.beat.settle_ms, self.config.decoder.lead_s
        most_ms = self.config.beat.settle_most_ms
        if settle_ms != "auto" and not 0 <= settle_ms <= most_ms:
            raise ConfigError(
                f"beat.settle_ms is {settle_ms:g}; it lies between 0 and beat.settle_most_ms, "
                f"{most_ms:g} ms"
            )
        if lead_s is not None:
            self.checked_lead(lead_s)

    def checked_lead(self, lead_s: float) -> float:
        """The lead time itself.

        Raises:
            ConfigError: the decoder was not trained for it.
        """
        manifest = self.bundle.manifest
        if not manifest.lead_s.min <= lead_s <= manifest.lead_s.max:
            raise ConfigError(
                f"lead_s is {lead_s:g}; bundle {manifest.name!r} was trained for "
                f"{manifest.lead_s.min:g} to {manifest.lead_s.max:g} s"
            )
        return lead_s

    def _choose_t0(self) -> float:
        bin_s, hop_s = self.source.bin_s, self.bundle.manifest.hop_s
        if bin_s is not None and (hop_s / bin_s < 0.999 or abs(hop_s / bin_s % 1.0 - 0.5) < 0.499):
            raise ConfigError(
                f"the source counts in bins of {bin_s * 1e3:g} ms, and the bundle's hop of "
                f"{hop_s * 1e3:g} ms is no whole multiple of that"
            )
        return self.source.origin_s()

    def _make_beat(self, decoder: Decoder) -> Beat:
        manifest, config = decoder.manifest, self.config
        hop_us, bin_us = self.schedule.hop_us, round(manifest.bin_s * 1e6)
        kept_s = max(RING_S, manifest.context_s + 1.0)
        source_bin_s = self.source.bin_s
        beat = Beat(
            clock=self._clock,
            schedule=self.schedule,
            ring=SpikeRing(
                round(config.input.budget_spikes_per_s * kept_s),
                bin_us,
                hop_us,
                hop_us,
                decoder.kernels,
            ),
            decoder=decoder,
            judge=ValidityJudge(
                manifest.context_s,
                manifest.stale_after_s,
                self.source.keep_alive_every_s,
                manifest.hop_s,
            ),
            shaper=Shaper(manifest.outputs, config.shaping.to_shaping()),
            run_id=self.run_id,
            lead_s=manifest.lead_s.default
            if config.decoder.lead_s is None
            else config.decoder.lead_s,
            settle=self.settle,
            source_fault=lambda: self._ingest.source_fault,
            source_bin_us=None if source_bin_s is None else round(source_bin_s * 1e6),
            token_cap=TokenCap(manifest.hop_s) if config.beat.shed_tokens else None,
        )
        if beat.token_cap is not None:
            beat.token_cap.on_change = self._cap_changed
        return beat

    def _make_loop(self) -> BeatLoop:
        chosen, ingest = self.config.beat, self._ingest
        wait = Wait(
            self._clock, self.beat, self._inbox, ingest.await_arrival,
            cut=chosen.cut, rehearse=chosen.rehearse,
        )  # fmt: skip
        return BeatLoop(self._clock, self.beat, wait, self._inbox, ingest, self.report)

    def close(self) -> None:
        """Let go of a daemon that was made and never ran."""
        self._ingest.stop()
        if self._outlet is not None:
            self._outlet.close()

    def stop(self) -> None:
        """Ask the beat to end; returns at once, from any thread or signal handler."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether an end was asked for."""
        return self._stopping.is_set()

    def report(self, event: str, detail: dict[str, Any]) -> None:
        """Publish an event and note it for the log; from any thread."""
        message = Event(run_id=self.run_id, t_sent=self._clock.now(), event=event, detail=detail)
        self._outgoing.append((b"event", encode(message)))
        self.notes.append(Note(event, detail))

    def run(self) -> None:
        """Beat until asked to stop.

        Raises:
            GuardError: a part failed; the safe value was published last.
        """
        self._ingest.start()
        self.deployer.failover.start()
        self._ask_for_realtime()
        self.report("started", self._description())
        if self.config.input.stamps == "arrival":
            self.report("stamps_of_arrival", {"warning": _BY_ARRIVAL})
        gc.collect()
        gc.freeze()
        gc.disable()
        sys.setswitchinterval(1e-4)
        try:
            self._beats()
        except Exception as err:  # noqa: BLE001 - the thread's one guard: it ends the daemon
            self.fail(err)
        finally:
            gc.enable()
            self._end()
        if self.failure is not None:
            raise GuardError(f"the daemon ended itself: {self.failure}") from self.failure

    def _ask_for_realtime(self) -> None:
        asked, priority = list(apply(self.config.realtime)), self.config.realtime.priority
        if priority and all(holds for _, holds, _ in asked):
            asked.append(("carriers", *lift_carriers(priority, self._ingest)))
        for what, holds, said in asked:
            self.report("realtime", {what: said} if holds else {"warning": said})

    @property
    def decode_endpoint(self) -> str:
        """Where decodes leave."""
        return self._publisher.endpoint

    def header(self) -> dict[str, Any]:
        """What a token log begins with."""
        return {
            "run_id": self.run_id,
            "t0_s": self.schedule.t0_s,
            "hop_us": self.schedule.hop_us,
            "bin_us": self.beat.ring.bin_us,
            "checksum": self.bundle.manifest.id,
        }

    def _description(self) -> dict[str, Any]:
        backend = self.opened.backend
        return {
            "decoder_id": self.bundle.manifest.name,
            "checksum": self.bundle.manifest.id,
            "backend": backend.name,
            "precision": backend.precision,
            "library": backend.library,
            "step_p99_ms": self.opened.step_p99_s * 1e3,
            "refused_backends": {one.name: one.reason for one in self.opened.tried},
            "source": str(self.source.inlet.description),
            "hop_ms": self.bundle.manifest.hop_s * 1e3,
        }

    def _beats(self) -> None:
        clock, beat, loop = self._clock, self.beat, self.loop
        self._ingest.wait_until_caught_up()
        t_heartbeat_s = clock.now()
        loop.begin(self.source.t_open_s, self._stopping.is_set)
        while not self._stopping.is_set():
            decode, t_out = loop.turn(self._publish)
            self._send_outgoing()
            loop.wait.while_carried()
            shadow = beat.follow(self.settle.settle_s)
            if shadow is not None:
                self._publisher.send(b"shadow", encode(shadow))
            loop.look_after(decode)
            if clock.now() >= t_heartbeat_s:
                t_heartbeat_s += HEARTBEAT_EVERY_S
                self._publisher.send(b"heartbeat", encode(self.heartbeat()))
            self._send_outgoing()
            self._time(decode, loop.t_due, t_out)

    def _time(self, decode: Decode, t_due: float, t_out: float) -> None:
        timing = timing_of(decode, self.beat, t_due, t_out, self._clock.now())
        self._publisher.send(b"timing", encode(timing))
        self.flight.note(decode, timing, len(self._inbox))

    def _publish(self, decode: Decode) -> float:
        """Send a decode both ways; when ZeroMQ had it."""
        self._publisher.send(b"decode", encode(decode))
        t_out = self._clock.now()
        if self._outlet is not None:
            self._outlet.push(decode)
        return t_out

    def _send_outgoing(self) -> None:
        while self._outgoing:
            self._publisher.send(*self._outgoing.popleft())

    def heartbeat(self) -> Heartbeat:
        """How the run stands."""
        return heartbeat_of(
            self.beat,
            self.source,
            run_id=self.run_id,
            t_sent=self._clock.now(),
        )

    def now(self) -> float:
        """The daemon's clock."""
        return self._clock.now()

    def look_at_units(self) -> None:
        """Report what the numbers of the units that fired suggest; called each second."""
        fired = self.beat.n_spikes_of_unit
        seen = {key: n for key, n in zip(list(self.source.keys), fired.tolist(), strict=False) if n}
        for event, warning in self._unit_numbers.look(seen, self.beat.decoder.manifest,
                                                      self.beat.reason):  # fmt: skip
            self.report(event, {"warning": warning})

    def _health_of(self, manifest: Manifest) -> UnitHealth:
        rates = manifest.training.get("unit_rates_hz")
        known = rates if isinstance(rates, dict) else {}
        return UnitHealth({key: float(hz) for key, hz in known.items() if isinstance(hz, float)})

    def _changed(self, change: str, seat: Seat) -> None:
        manifest = seat.decoder.manifest
        if seat is self.beat.lineup.active:
            self.health = self._health_of(manifest)
        self.report(change, {"decoder_id": manifest.name, "checksum": manifest.id})

    def _cap_changed(self, change: CapChange) -> None:
        detail: dict[str, Any] = {
            "token_cap": change.cap,
            "before": change.before,
            "why": change.why,
            "decode_ms": change.taken_s * 1e3,
            "limit_ms": change.limit_s * 1e3,
        }
        if change.before is None:
            detail["warning"] = _CAP_BEGAN
        self.report("token_cap", detail)

    def fail(self, err: Exception) -> None:
        """End the run with the error that a part of it ended with; from any thread."""
        if self.failure is None:
            self.failure = err
        self._stopping.set()

    def _end(self) -> None:
        reason = "stopping" if self.failure is None else "guard"
        if self.failure is not None:
            self.report("failed", {"error": str(self.failure)})
        self.report("stopped", {"reason": reason})
        self._publish(self.beat.last_word(reason, self.settle.settle_s))
        self._send_outgoing()
        self.deployer.stop()
        self._ingest.stop()
        if self._outlet is not None:
            self._outlet.close()
