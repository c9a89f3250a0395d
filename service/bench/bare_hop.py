"""A bare hop: one message from a process to another, over ZeroMQ or LSL, and nothing else.

It is the floor of a loop's last stages: no loop hands a decode over sooner on this machine.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from service.bench.rig import Rig
from service.daemon.realtime import apply, lift_carriers
from streams.clock import Clock, MonotonicClock
from streams.files import write_whole
from streams.lsl.inlets import find_inlet
from streams.lsl.outlets import ValuesOutlet
from streams.messages import Float64s
from streams.wire.sockets import DecodeSubscriber, Publisher

N_CHANNELS = 5
"""As many as the decodes of two dimensions have on LSL."""
TOPIC = "hop"
FLOORS = ("wake", "lsl_hop", "zmq_send", "zmq_receive", "zmq_hop")
_TIMES = struct.Struct("<3d")
_WITHIN_S = 0.5
_FOUND_WITHIN_S = 20.0
SECONDS = 6.0


def send_hops(
    *, name: str, hop_s: float, seconds: float, n_bytes: int, priority: int, announce: Path
) -> None:
    """Send a message on each deadline, in turn over ZeroMQ and over LSL.

    Args:
        name: of the LSL stream.
        hop_s: between deadlines.
        seconds: how long, once somebody pulls the stream.
        n_bytes: of a ZeroMQ message.
        priority: SCHED_FIFO priority to ask for, as the daemon's beat does; 0 for none.
        announce: file to write the address to.
    """
    clock, publisher = MonotonicClock(), Publisher("tcp://127.0.0.1:*")
    outlet = ValuesOutlet(name, "Hop", name, [f"c{i}" for i in range(N_CHANNELS)])
    write_whole(announce, json.dumps({"hop": publisher.endpoint}))
    outlet.wait_for_consumers(_FOUND_WITHIN_S)
    if priority and all(holds for _, holds, _ in apply(priority)):
        lift_carriers(priority, threading.current_thread())
    padding = bytes(max(0, n_bytes - _TIMES.size))
    topic, t0_s, out_s = TOPIC.encode(), clock.now(), math.nan
    for k in range(1, round(seconds / hop_s) + 1):
        t_due = t0_s + k * hop_s
        clock.sleep_until(t_due)
        t_sent = clock.now()
        if k % 2:
            publisher.send(topic, _TIMES.pack(t_due, t_sent, out_s) + padding)
            out_s = clock.now() - t_sent
        else:
            outlet.push([t_due, t_sent, *[0.0] * (N_CHANNELS - 2)], t_sent)
    # A stream that ends under its receiver makes LSL complain there.
    t_end_s = clock.now() + _FOUND_WITHIN_S
    while outlet.has_consumers() and clock.now() < t_end_s:
        clock.sleep_until(clock.now() + _WITHIN_S / 10)
    outlet.close()
    publisher.close()


def floors_ms(rig: Rig, *, hop_s: float, n_bytes: int, priority: int) -> dict[str, Float64s]:
    """Measure bare hops from a process of its own to this one.

    Args:
        rig: where the process runs.
        hop_s: between messages.
        n_bytes: of a message over ZeroMQ.
        priority: asked for by the sending process.

    Returns:
        (n,) milliseconds each: `wake`, a timer's lateness; `zmq_send`, the call that gives a
        message to ZeroMQ; `zmq_receive`, from there until it is here; `zmq_hop`, both; `lsl_hop`,
        from before the push until the sample is here.
    """
    name, announced = f"{rig.path.name}-hop", rig.path / "hop.json"
    rig.start(
        "hop", "bench", "hop", "--name", name, "--hop-ms", str(hop_s * 1e3), "--seconds",
        str(SECONDS), "--bytes", str(n_bytes), "--priority", str(priority),
        "--announce", str(announced),
    )  # fmt: skip
    endpoint = rig.wait_for_file(announced, "hop")["hop"]
    subscriber = DecodeSubscriber(endpoint, (TOPIC,))
    inlet = find_inlet("Hop", name=name, timeout_s=_FOUND_WITHIN_S)
    inlet.open()

    def over_zmq() -> tuple[float, ...] | None:
        frames = subscriber.receive_frames(_WITHIN_S)
        return None if frames is None else _TIMES.unpack_from(frames[1])

    def over_lsl() -> tuple[float, ...] | None:
        values, _ = inlet.pull(_WITHIN_S)
        return (*values[-1, :2], math.nan) if len(values) else None

    hops = _receive(over_zmq, over_lsl, MonotonicClock())
    inlet.close()
    subscriber.close()
    rig.stop("hop")
    return hops


def _receive(
    over_zmq: Callable[[], tuple[float, ...] | None],
    over_lsl: Callable[[], tuple[float, ...] | None],
    clock: Clock,
) -> dict[str, Float64s]:
    """Receive by both ways in turn, until neither brings anything."""
    hops: dict[str, list[float]] = {name: [] for name in FLOORS}
    has_begun, n_none, before_s = False, 0, math.nan
    while n_none < (2 if has_begun else round(2 * _FOUND_WITHIN_S / _WITHIN_S)):
        for way, receive in (("zmq_hop", over_zmq), ("lsl_hop", over_lsl)):
            times, now_s = receive(), clock.now()
            if times is None:
                n_none += 1
                continue
            has_begun, n_none = True, 0
            t_due, t_sent, out_s = times
            hops[way].append(now_s - t_sent)
            hops["wake"].append(t_sent - t_due)
            if way == "zmq_hop":
                # A message cannot tell how long its own sending takes: the next one does.
                if math.isfinite(out_s) and math.isfinite(before_s):
                    hops["zmq_send"].append(out_s)
                    hops["zmq_receive"].append(before_s - out_s)
                before_s = now_s - t_sent
    return {name: 1e3 * np.array(taken_s) for name, taken_s in hops.items()}
