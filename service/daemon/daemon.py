"""The daemon: runs the decode loop until it is told to stop."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from export.backends.opening import open_backend
from export.backends.table import kernels_for
from export.bundle import DecoderBundle
from service.config import ServeConfig
from service.daemon.access import Doorkeeper
from service.daemon.compose import (
    check_config,
    choose_t0,
    make_admission,
    make_recorder,
    make_ring,
    make_source,
    make_stand_in,
    make_token_cap,
    search_stream,
    shaping_of,
    signers_of,
)
from service.daemon.lifeline import NO_LIMIT, Lifeline, Phase
from service.daemon.realtime import ask_for, undisturbed
from service.daemon.stand_in import CHANGE
from service.deploy.failover import Spare, open_spare, tell_choice
from service.deploy.opening import describe
from service.deploy.swap import Deployer
from service.deploy.transfer import Transfers
from service.errors import GuardError
from service.guard import Guard
from service.loop.decode_loop import DecodeLoop
from service.loop.decode_writer import as_of_now
from service.loop.intake.arrival_stamps import BY_ARRIVAL
from service.loop.intake.arrivals import Arrival
from service.loop.intake.ingest import Ingest
from service.loop.intake.schedule import Schedule
from service.loop.lsl_outlet import DecodeOutlet
from service.loop.shaping import Shaper
from service.loop.slots import make_slot
from service.telemetry.heartbeat import heartbeat_of
from service.telemetry.recording.run_journal import RunJournal
from service.telemetry.run_telemetry import RunTelemetry
from service.telemetry.unit_agreement import AgreementWatch
from service.telemetry.unit_health import UnitWatch
from streams.clock import MonotonicClock
from streams.wire.packed import decode_writer
from streams.wire.schema import Decode, Event, Heartbeat, encode
from streams.wire.sockets import Publisher
from streams.wire.subscribers import Ended

HEARTBEAT_EVERY_S = 1.0
BEGINS_WITHIN_S, ENDS_WITHIN_S = 15.0, 20.0
SENT_AT_ONCE = 50
"""Events that leave in one go: somebody who sends `mark` in a loop must not hold up the beat."""
OUTGOING_KEPT = 1000

_SIMULATED = f"these are decodes of a SIMULATED subject, no person's; {CHANGE}"


class Daemon:
    """One run of the loop, spikes in to decodes out.

    Args:
        config: the run's.
        bundle: the opened bundle.
        publisher: the bound socket for decodes.
        lifeline: tells the daemon's guardian how far it is.
        hung: backends that hung before, and where.
        door: knows who may give which command; by default everybody may, as without keys.

    Raises:
        ConfigError: the config does not fit the bundle.
        BundleError, BackendUnavailable: no backend runs the bundle.
        StreamsError: no fitting stream.
    """

    def __init__(
        self,
        config: ServeConfig,
        bundle: DecoderBundle,
        publisher: Publisher,
        *,
        lifeline: Lifeline,
        hung: Mapping[str, str],
        door: Doorkeeper | None = None,
    ) -> None:
        self.lifeline, self._hung = lifeline, hung
        self.door = door or Doorkeeper(None, MonotonicClock())
        self.config, self.bundle = config, bundle
        self.run_id, self.journal = uuid.uuid4().hex[:8], RunJournal()
        self.notes: deque[tuple[str, dict[str, Any]]] = deque(maxlen=OUTGOING_KEPT)
        self.failure: Exception | None = None
        self._outgoing: deque[tuple[bytes, bytes]] = deque(maxlen=OUTGOING_KEPT)
        self._publisher, self._clock = publisher, MonotonicClock()
        self._stopping = threading.Event()
        self._inbox: deque[Arrival] = deque()
        check_config(config, bundle.manifest)
        manifest, decoder, output = bundle.manifest, config.decoder, config.output
        self._stand_in = make_stand_in(config, publisher.endpoint)
        spare = self._open()
        dims = {output.name: output.dims for output in manifest.outputs}
        self._write = decode_writer(output.format, dims)
        lifeline.say(run_id=self.run_id, simulated=self.is_simulated, form=output.format, dims=dims)
        self._outlet = self._open_outlet() if output.lsl_outlet else None
        t0_s = choose_t0(self.source, manifest.hop_s)
        self.schedule = Schedule(t0_s, round(manifest.hop_s * 1e6))
        self._ingest = Ingest(
            self.source, self._clock, self.schedule, self._inbox, self.report, self.fail,
            by_loop=config.beat.cut != "settled",
        )  # fmt: skip
        self.telemetry = RunTelemetry(self.schedule, self.source.keys)
        self.loop = self._make_loop()
        self.recorder = make_recorder(
            config, self.schedule, manifest, self.journal, self.loop.ring.capacity, self.source,
            self.report, run_id=self.run_id, follows=lifeline.run_before, clock=self._clock,
        )  # fmt: skip
        self.units = UnitWatch(manifest, self.source.keys)
        self.agreement = AgreementWatch(self.loop, self.telemetry, self.source.keys, self.report)
        self.deployer = self._make_deployer()
        self.deployer.failover.refused |= hung
        self.deployer.failover.prepare(bundle, self.opened, spare)
        in_use = self.deployer.failover.paths_in_use
        self.transfers = Transfers(Path(decoder.incoming), bundle.path, in_use)

    def _open(self) -> Spare:
        """Open the backend, its spare and the source; libraries load while the network answers."""
        config, decoder, lifeline = self.config, self.config.decoder, self.lifeline
        manifest, most_s = self.bundle.manifest, decoder.open_most_s
        doing = f"opening {manifest.name!r} on {decoder.backend} within {most_s:g} s"
        with search_stream(config.input, self._clock) as find:
            lifeline.reach(Phase.STARTING, self._clock.now() + most_s, doing)
            self.opened = open_backend(self.bundle, decoder.backend, decoder.fallback)
            tell_choice(self.opened, self.report)
            lifeline.reach(Phase.STARTING, NO_LIMIT, "the start")
            spare = open_spare(self.bundle, self.opened, most_s)
            choice, after = self.opened.choice, self.opened.next_choices
            lifeline.say(backend=choice, hop_s=manifest.hop_s, after=after)
            kernels = kernels_for(self.opened.backend)
            keys = tuple(unit.key for unit in manifest.units)
            find = self._stand_in.after(find) if self._stand_in else find
            self.source = make_source(config.input, keys, self._clock, kernels, find)
        return spare

    def _open_outlet(self) -> DecodeOutlet:
        name, outputs = self.config.output.lsl_name, self.bundle.manifest.outputs
        return DecodeOutlet(name, outputs, simulated=self.is_simulated)

    def _make_deployer(self) -> Deployer:
        decoder, source = self.config.decoder, self.source
        return Deployer(
            self.loop,
            source.keys,
            self.report,
            backends=(decoder.backend, *decoder.fallback),
            token_cap=self.config.beat.token_cap,
            keep_alive_every_s=source.keep_alive_every_s,
            open_most_s=decoder.open_most_s,
            signers=signers_of(decoder),
        )

    def _make_loop(self) -> DecodeLoop:
        config, manifest, source = self.config, self.bundle.manifest, self.source
        beat, lead_s, ingest = config.beat, config.decoder.lead_s, self._ingest
        slot = make_slot(
            self.bundle, self.opened, source.keys,
            Shaper(manifest.outputs, shaping_of(config.shaping)), token_cap=beat.token_cap,
            keep_alive_every_s=source.keep_alive_every_s, kernels=source.kernels,
            journal=self.journal,
        )  # fmt: skip
        ring = make_ring(config.input, manifest, self.schedule, source.kernels)
        return DecodeLoop(
            clock=self._clock,
            ring=ring,
            admission=make_admission(beat, manifest, source, self.schedule, ring),
            slot=slot,
            inbox=self._inbox,
            arrivals=ingest,
            run_id=self.run_id,
            lead_s=manifest.lead_s.default if lead_s is None else lead_s,
            report=self.report,
            source_fault=lambda: ingest.source_fault,
            token_cap=make_token_cap(manifest.hop_s, self.report) if beat.shed_tokens else None,
            observer=self.telemetry,
            journal=self.journal,
            cut=beat.cut,
            predecode=beat.rehearse,
            write=self._write,
        )

    def close(self) -> None:
        """Release a daemon that never ran."""
        self._ingest.stop()
        if self._stand_in is not None:
            self._stand_in.close()
        if self._outlet is not None:
            self._outlet.close()

    def stop(self) -> None:
        """Ask the loop to end; returns at once, from any thread or signal handler."""
        self._stopping.set()

    def fail(self, err: Exception) -> None:
        """End the run with a part's error; from any thread."""
        if self.failure is None:
            self.failure = err
        self._stopping.set()

    def report(self, event: str, detail: dict[str, Any]) -> None:
        """Publish an event and note it for the log; from any thread."""
        message = Event(run_id=self.run_id, t_sent=self._clock.now(), event=event, detail=detail)
        encoded = encode(message)
        self._outgoing.append((b"event", encoded))
        self.journal.told("event", encoded)
        self.notes.append((event, detail))

    def run(self) -> None:
        """Decode until asked to stop.

        Raises:
            GuardError: a part failed; the safe value was published last.
        """
        if self.recorder is not None:
            self.recorder.begin()
            self.journal.beat_over(self.loop, self._clock.now())
        self._ingest.start()
        self.deployer.watch()
        self.agreement.start()
        wanted = self.config.realtime
        for what, holds, said in ask_for(
            wanted.priority, wanted.cores, self._ingest.puller, lock_memory=wanted.lock_memory
        ):
            self.report("realtime", {what: said} if holds else {"warning": said})
        self.report("started", self._description())
        if self.is_simulated:
            self.report("simulated", {"warning": _SIMULATED})
        if self.config.input.stamps == "arrival":
            self.report("stamps_of_arrival", {"warning": BY_ARRIVAL})
        try:
            with Guard(Exception, self.fail), undisturbed():
                self._beats()
        finally:
            self._end()
        if self.failure is not None:
            raise GuardError(f"the daemon ended itself: {self.failure}") from self.failure

    @property
    def is_simulated(self) -> bool:
        """True if the source says that nobody's neurons are behind it."""
        return self.source.inlet.description.simulated

    @property
    def decode_endpoint(self) -> str:
        """The decodes' endpoint."""
        return self._publisher.endpoint

    def heartbeat(self) -> Heartbeat:
        """Return the run's state."""
        decode_ms, t_sent = self.telemetry.decode_ms, self._clock.now()
        recorder, memory = self.recorder, self.deployer.memory
        failed = {"record": recorder and recorder.failure, "memory_check": memory.failure}
        told = heartbeat_of(
            self.loop, self.source, decode_ms, run_id=self.run_id, t_sent=t_sent,
            flags=[part for part, why in failed.items() if why]
            + ["simulated"] * self.is_simulated,
            recorded=recorder is not None and not recorder.failure,
            r2_lost=self.agreement.r2_lost,
        )  # fmt: skip
        # Asked by the control thread while a beat hangs: the newest decode is no news any more.
        if self.lifeline.is_overdue(t_sent):
            told = msgspec.structs.replace(told, validity="fault", reason="hung")
        return told

    def now(self) -> float:
        """Return the time on the daemon's clock."""
        return self._clock.now()

    def look_at_subscribers(self) -> list[Ended]:
        """End subscribers that send without end; called by the control thread."""
        return self._publisher.connections.look(self.now())

    def look_at_units(self) -> None:
        """Report warnings about the units that fired; called each second by the control thread."""
        loop, telemetry = self.loop, self.telemetry
        for event, warning in self.units.look(
            self.now(), telemetry.n_spikes_of_unit, loop.decoder.manifest, loop.reason
        ):
            self.report(event, {"warning": warning})

    def _beats(self) -> None:
        clock, loop, telemetry = self._clock, self.loop, self.telemetry
        self.lifeline.reach(Phase.RUNNING, clock.now() + BEGINS_WITHIN_S, "the first beat")
        self._ingest.wait_until_caught_up(loop.carry_out_commands)
        t_heartbeat_s = clock.now()
        loop.begin(self.source.t_open_s, self._stopping.is_set)
        while not self._stopping.is_set():
            decode, t_out = loop.run_beat(self._publish)
            self._send_outgoing()
            # From here on nothing is in a hurry: what the client needs is on its way.
            loop.timer.idle_after_publish()
            telemetry.published(decode)
            shadow = loop.run_shadow()
            if shadow is not None:
                self._publisher.send(b"shadow", encode(shadow))
                self.journal.shadow(loop.slots.shadow_number, shadow)
            loop.review_settling(decode)
            self.journal.beat_over(loop, clock.now())
            self.door.ended(self._publisher.watch_subscribers(clock.now()))
            if clock.now() >= t_heartbeat_s:
                t_heartbeat_s += HEARTBEAT_EVERY_S
                self._say_last_words(decode)
                heartbeat = encode(self.heartbeat())
                self._publisher.send(b"heartbeat", heartbeat)
                self.journal.told("heartbeat", heartbeat)
            self._send_outgoing()
            timing = telemetry.beat_over(
                decode, loop, t_out=t_out, t_end=clock.now(), queued=len(self._inbox)
            )
            self._publisher.send(b"timing", encode(timing))
            self.lifeline.beat_over(self._next_due_s(decode))

    def _next_due_s(self, decode: Decode) -> float:
        """Return when the next beat is over at the latest, if all is well."""
        settle, hop_s = self.loop.settle, self.schedule.hop_s
        # While the source's delay is measured, a beat may wait for as long as is allowed.
        waited_s = self.config.beat.settle_most_ms * 1e-3 if settle.settling else settle.settle_s
        t_due_s = self.schedule.window_end_s(decode.beat + 1) + waited_s
        return max(self._clock.now(), t_due_s) + hop_s

    def _say_last_words(self, decode: Decode) -> None:
        slot = self.loop.slots.active
        safe = {o.name: [0.0] * o.dims if o.safe == "zero" else None for o in slot.shaper.outputs}
        doing = f"backend {slot.decoder.backend.name}"
        clients = tuple((one.name, one.role, one.key) for one in self.door.listed)
        self.lifeline.say(doing=doing, newest=decode, safe=safe, clients=clients)

    def _publish(self, decode: Decode) -> float:
        """Send a decode by ZeroMQ and by LSL; return when ZeroMQ had it."""
        payload = self._write(decode)
        if not self.lifeline.has_newest:  # it may die before its first heartbeat
            self._say_last_words(decode)
        self.lifeline.sends(decode)
        # The process may have stood still since the decode was judged, and may before each wire.
        if (current := self._as_of_now(decode)) is not decode:
            payload = self._write(current)
        self._publisher.send(b"decode", payload)
        t_out = self._clock.now()
        last = current
        if self._outlet is not None:
            last = self._as_of_now(current)
            self._outlet.push(last)
        self.journal.said(
            self.loop.decoder.number, current,
            was_shaped=not decode.reason, then_safe=last is not current,
        )  # fmt: skip
        return t_out

    def _as_of_now(self, decode: Decode) -> Decode:
        loop = self.loop
        slot, settle_s, hop_s = loop.slots.active, loop.settle.settle_s, loop.schedule.hop_s
        return as_of_now(decode, slot, settle_s, hop_s, self._clock.now())

    def _send_outgoing(self) -> None:
        for _ in range(min(len(self._outgoing), SENT_AT_ONCE)):
            self._publisher.send(*self._outgoing.popleft())

    def _description(self) -> dict[str, Any]:
        told, source = describe(self.bundle.manifest, self.opened), self.source
        told["refused_backends"] |= self._hung
        return told | {"source": str(source.inlet.description), "simulated": self.is_simulated}

    def _end(self) -> None:
        self.lifeline.reach(Phase.ENDING, self._clock.now() + ENDS_WITHIN_S, "the end")
        reason = "stopping" if self.failure is None else "guard"
        if self.failure is not None:
            self.report("failed", {"error": str(self.failure)})
        self.report("stopped", {"reason": reason})
        self.loop.commands.close()  # the control thread must not wait for a loop that is over
        self._publish(self.loop.final_safe_decode(reason))
        while self._outgoing:
            self._send_outgoing()
        self.deployer.stop()
        self.agreement.stop()
        self._ingest.stop()
        if self._stand_in is not None:
            self._stand_in.close()
        if self._outlet is not None:
            self._outlet.close()
        if self.recorder is not None:
            self.recorder.stop()
