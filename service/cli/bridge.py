"""Put a device's spikes on LSL, with watermarks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from service.cli.options import Command, Name, arg, flag, listed, opt, quieten_lsl

if TYPE_CHECKING:
    from streams.bridges.blocks import Source
    from streams.clock import Clock

Host = Annotated[str, opt("Where the device's program runs.")]
StreamRateHz = Annotated[float, opt("Samples per second, where the device does not tell.")]
WayMs = Annotated[float, opt("Measured way from electrode to bridge: stamps are set back by it.")]
Budget = Annotated[float, opt("Spikes per second that the buffers are sized for.")]


def openephys(
    host: Host = "127.0.0.1",
    port: Annotated[int, opt("Data port of the plugin ZMQ Interface.")] = 5556,
    stream: Annotated[str, opt("The GUI's stream; any unless given.")] = "",
    electrode: Annotated[
        list[str] | None, opt("Number of an electrode; may be given again.", "NAME=NUMBER")
    ] = None,
    rate_hz: StreamRateHz = 30_000.0,
    way_ms: WayMs = 0.0,
    budget: Budget = 50_000.0,
    name: Name = "open-ephys",
) -> None:
    """Open Ephys GUI, by its plugin ZMQ Interface."""
    from service.errors import ConfigError
    from streams.bridges.open_ephys import OpenEphysSource

    numbers: dict[str, int] = {}
    for one in electrode or []:
        label, _, number = one.rpartition("=")
        if not label or not number.isdigit():
            raise ConfigError(f"--electrode {one!r} is not NAME=NUMBER")
        numbers[label] = int(number)
    _run(
        lambda clock: OpenEphysSource(clock, host, port, stream, numbers, rate_hz),
        name,
        way_ms,
        budget,
    )


def intan(
    host: Host = "127.0.0.1",
    port: Annotated[int, opt("RHX's command port; waveforms and spikes come on the next two.")] = (
        5000
    ),
    channels: Annotated[str, opt("Channels whose spikes RHX shall send.", "A-000,A-001,...")] = "",
    start: Annotated[bool, flag("--start", "Tell RHX to run.")] = False,
    rate_hz: StreamRateHz = 30_000.0,
    way_ms: WayMs = 0.0,
    budget: Budget = 50_000.0,
    name: Name = "intan",
) -> None:
    """Intan RHX, by its TCP spike output."""
    from streams.bridges.intan import IntanSource

    ports, chosen = (port, port + 1, port + 2), listed(channels)
    _run(
        lambda clock: IntanSource(clock, host, ports, chosen, start, rate_hz), name, way_ms, budget
    )


def blackrock(
    device: Annotated[str, arg("DEVICE", "As pycbsdk names it: HUB1, NSP, LEGACY_NSP, NPLAY.")],
    way_ms: WayMs = 0.0,
    budget: Budget = 50_000.0,
    name: Name = "blackrock",
) -> None:
    """Blackrock systems, by pycbsdk."""
    from streams.bridges.blackrock import BlackrockSource, open_session

    session = open_session(device)
    _run(lambda clock: BlackrockSource(clock, session), name, way_ms, budget)


def json(
    address: Annotated[str, arg("ADDRESS", "tcp://HOST:PORT of a publisher, or udp://HOST:PORT.")],
    time: Annotated[str, opt("Field of a spike's time.", "PATH")] = "t",
    channel: Annotated[str, opt("Field of its channel.", "PATH")] = "channel",
    unit: Annotated[str, opt("Field of its unit.", "PATH")] = "unit",
    spikes: Annotated[str, opt("Field of the list of spikes; else the message.", "PATH")] = "",
    now: Annotated[str, opt("Field of the device's time at sending.", "PATH")] = "now",
    number: Annotated[str, opt("Field that counts the messages.", "PATH")] = "seq",
    rate_hz: Annotated[float, opt("Samples per second, where times count samples.")] = 1.0,
    way_ms: WayMs = 0.0,
    budget: Budget = 50_000.0,
    name: Name = "json",
) -> None:
    """Any program that sends spikes as JSON, over ZeroMQ or UDP."""
    from streams.bridges.json_messages import JsonSource, Names

    names = Names(time=time, channel=channel, unit=unit, spikes=spikes, now=now, number=number)
    _run(lambda clock: JsonSource(clock, address, names, rate_hz), name, way_ms, budget)


def _run(open_source: Callable[[Clock], Source], name: str, way_ms: float, budget: float) -> None:
    """Forward what the source reads until a signal comes."""
    quieten_lsl()
    from service.signals import until_signalled
    from streams.bridges.bridge import Bridge, describe, run_bridge
    from streams.clock import MonotonicClock
    from streams.lsl.outlets import SpikeOutlet

    def tell(line: str) -> None:
        sys.stderr.write(f"spikeloop bridge: {line}\n")

    clock = MonotonicClock()
    source = open_source(clock)
    bridge = Bridge(SpikeOutlet(name, f"{name}-bridge", ["ch0/u0"], budget), way_ms * 1e-3)
    tell(f"sends {name!r} on LSL")
    run_bridge(source, bridge, clock, until_signalled(), tell)
    tell(describe(bridge))


COMMANDS: dict[str, Command] = {
    "openephys": openephys,
    "intan": intan,
    "blackrock": blackrock,
    "json": json,
}
