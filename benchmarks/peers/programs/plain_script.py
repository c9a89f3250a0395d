"""A decoder as a lab writes it in an afternoon: pylsl, numpy, a ridge regression. LSL in, LSL out.

Run by `python -m benchmarks.peers` in an environment of its own; it uses nothing of spikeloop.
"""

import argparse
import time

import numpy as np
import pylsl
from sklearn.linear_model import Ridge

N_HISTORY = 10
POLL_S = 0.001


def fitted(n_units: int) -> Ridge:
    """A ridge over the last ten bins of counts; what it was fitted to does not matter here."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (400, N_HISTORY * n_units)).astype(np.float64)
    return Ridge(alpha=100.0).fit(counts, rng.normal(size=(400, 2)))


def main() -> None:
    """Bin spikes by their stamps, decode each bin once a later stamp was seen, and send it."""
    p = argparse.ArgumentParser()
    p.add_argument("--stream", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--units", type=int, required=True)
    p.add_argument("--hop", type=float, required=True)
    a = p.parse_args()
    model = fitted(a.units)
    info = pylsl.StreamInfo(a.out, "Decoder", 2, pylsl.IRREGULAR_RATE, pylsl.cf_double64, a.out)
    outlet = pylsl.StreamOutlet(info)
    (found,) = pylsl.resolve_byprop("name", a.stream, 1, 60.0)
    inlet = pylsl.StreamInlet(found, max_buflen=10_000)
    history = np.zeros((N_HISTORY, a.units))
    counts = np.zeros(a.units)
    edge = None
    while True:
        samples, stamps = inlet.pull_chunk(timeout=0.0, max_samples=10_000)
        if not stamps:
            time.sleep(POLL_S)
            continue
        channel, t = np.array(samples)[:, 0], np.array(stamps)
        if edge is None:
            edge = (np.floor(t[0] / a.hop) + 1) * a.hop
        while len(t):
            inside = (t <= edge) & (channel > 0)
            np.add.at(counts, channel[inside] - 1, 1)
            if t[-1] <= edge:
                break
            history = np.vstack((history[1:], counts))
            outlet.push_sample(model.predict(history.reshape(1, -1))[0], edge)
            later = t > edge
            channel, t = channel[later], t[later]
            counts = np.zeros(a.units)
            edge += a.hop


if __name__ == "__main__":
    main()
