"""Send a device's spikes to spikeloop over LSL; `read` is yours. Needs only pylsl."""

import time
from collections import deque

import pylsl


def read() -> tuple[float, list[tuple[float, int, int]]]:
    """Return the device's time, and (time, channel, unit) of each spike since the last call.

    In seconds of the device's own clock. Here are eight made-up units, to try it out.
    """
    now = time.perf_counter() + 86_400
    return now, [(now - 0.0004 * channel, channel, 1) for channel in range(1, 9)]


info = pylsl.StreamInfo("my-rig", "Spikes", 3, pylsl.IRREGULAR_RATE, pylsl.cf_int32, "my-rig-1")
info.set_channel_labels(["channel", "unit", "seq"])
outlet = pylsl.StreamOutlet(info)
offsets, seq = deque(maxlen=1000), 0
while True:
    now, spikes = read()
    offsets.append(pylsl.local_clock() - now)
    offset = min(offsets)  # of the call that was held up least
    samples, stamps = [], []
    for t, channel, unit in [*sorted(spikes), (now, -1, -1)]:  # last a keep-alive: alive up to now
        samples.append([channel, unit, seq])
        stamps.append(t + offset)
        seq = (seq + 1) % 2**31
    outlet.push_chunk(samples, stamps)
    time.sleep(0.005)
