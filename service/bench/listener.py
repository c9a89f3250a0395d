"""A client that keeps the decodes in columns, for hours if asked, and their stages."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from threading import Event
from typing import Any

import numpy as np

from service.telemetry.percentiles import percentiles
from streams.clock import MonotonicClock
from streams.messages import Float64s
from streams.wire.sockets import DecodeSubscriber

TOPICS = ("decode", "heartbeat", "event")
DECODE_COLUMNS = ("beat", "t_window", "t_cut", "t_done", "late", "tokens")
TIMING_COLUMNS = (
    "beat", "lsl_age_s", "t_window", "t_arrival", "t_due", "is_settled", "t_cut", "t_tokens",
    "t_done", "run_s", "was_ahead", "t_sent", "t_out", "t_end",
)  # fmt: skip
STAGES = {
    "lsl_age": "LSL: a spike's arrival after its stamp",
    "waiting": "waiting: for the bin's last spikes, or the settle time",
    "ingest": "ingest: spikes read and admitted, bin found whole",
    "cut": "cut: ring to tokens; 0 where decoded ahead",
    "infer": "infer: the network, or its decode confirmed",
    "shape": "shape: judged, shaped, message made",
    "publish": "publish: written and given to ZeroMQ",
    "receive": "receive: read by the subscriber",
}
OURS = ("ingest", "cut", "infer", "shape", "publish", "receive")
SUMS = {"deliver": ("shape", "publish", "receive"), "ours": OURS}
"""What a client waits for once the value is there, and once the last spikes are here."""
FLOOR_OF = {
    "lsl_age": "lsl_hop",
    "publish": "zmq_send",
    "receive": "zmq_receive",
    "deliver": "zmq_hop",
}
"""What the same machine needs for a stage if nothing is done in it (`bare_hop`)."""


class Columns:
    """Rows of numbers, a column each; null becomes NaN."""

    def __init__(self, names: Sequence[str]) -> None:
        self._columns = {name: array("d") for name in names}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name: str) -> Float64s:
        return np.array(self._columns[name], np.float64)

    def add(self, row: dict[str, Any]) -> None:
        """Append the row's fields of these names."""
        for name, column in self._columns.items():
            value = row[name]
            column.append(math.nan if value is None else value)


class Listener:
    """Receives what the daemon publishes. Latencies count from the beat that settled on.

    Attributes:
        decodes: one row a decode, with the time that it was received at.
        timings: one row a beat, where the topic `timing` is listened to.
        first, last: the first and the newest decode.
        bare_timer: what the timer that ran beside counted.
    """

    def __init__(self) -> None:
        self.decodes = Columns((*DECODE_COLUMNS, "received"))
        self.timings = Columns(TIMING_COLUMNS)
        self.first: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.heartbeat: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.bare_timer: dict[str, int] = {}

    def listen(
        self,
        endpoint: str,
        seconds: float,
        each: Callable[[dict[str, Any] | None], None] = lambda decode: None,
        topics: Sequence[str] = TOPICS,
        ending: Event | None = None,
    ) -> None:
        """Listen for `seconds` from the first decode on.

        Args:
            endpoint: the daemon's decodes.
            seconds: how long.
            each: called with each decode, and with None after anything else or a while.
            topics: what to listen to.
            ending: ends it earlier.
        """
        clock, ending = MonotonicClock(), ending or Event()
        t_end_s: float | None = None
        # However it ends: a socket that is left open keeps the process at its exit.
        with closing(DecodeSubscriber(endpoint, topics)) as subscriber:
            while not ending.is_set() and (t_end_s is None or clock.now() < t_end_s):
                received = subscriber.receive(0.2)
                now_s = clock.now()
                each(self._take(received, now_s))
                if t_end_s is None and len(self.decodes):
                    t_end_s = now_s + seconds

    def _take(
        self, received: tuple[str, dict[str, Any]] | None, now_s: float
    ) -> dict[str, Any] | None:
        if received is None:
            return None
        topic, message = received
        if topic == "decode":
            self.decodes.add(message | {"received": now_s})
            self.first = self.first or message
            self.last = message
            return message
        if topic == "heartbeat":
            self.heartbeat = message
        elif topic == "timing":
            # Columns hold numbers only.
            self.timings.add(message | {"is_settled": message["cut_by"] == "settled"})
        else:
            self.events.append(message)
        return None

    def summary(self) -> dict[str, Any]:
        """The fields of the loop that demo and bench share.

        `spikes_in` is of the last heartbeat, so that it is the sum of the fates.
        """
        first, last, beat, decodes = self.first, self.last, self.heartbeat, self.decodes
        skipped = last["beats_skipped"] - first["beats_skipped"]
        late = int(decodes["late"].sum())
        settled = decodes["beat"] >= beat["settled_from_beat"]
        decode_ms = 1e3 * (decodes["t_done"] - decodes["t_cut"])[settled]
        return {
            "beats": last["beat"] - first["beat"] + 1,
            "missed_beats": late + skipped,
            "late_beats": late,
            "skipped_beats": skipped,
            "bare_timer_late": self.bare_timer["missed"],
            "decode_ms": percentiles(decode_ms.tolist()),
            "end_to_end_ms": percentiles(self.end_to_end_ms().tolist()),
            "spikes_in": beat["spikes_in"],
            "spikes_late": last["spikes_late"],
            "spikes_dropped": last["spikes_dropped"],
            "fates": beat["fates"],
            "spikes_pending": beat["spikes_pending"],
            "spikes_lost": beat["spikes_lost"],
            "messages_lost": last["seq"] - first["seq"] + 1 - len(decodes),
            "settle_ms": beat["settle_ms"],
            "hop_ms": beat["hop_ms"],
            "realtime": [one["detail"] for one in self.events if one["event"] == "realtime"],
            "backend": last["backend"],
            "decoder_id": last["decoder_id"],
        }

    def end_to_end_ms(self) -> Float64s:
        """From the window's end to its decode in the subscriber's hands, of the settled beats."""
        settled = self.decodes["beat"] >= self.heartbeat["settled_from_beat"]
        taken_ms: Float64s = 1e3 * (self.decodes["received"] - self.decodes["t_window"])
        of_settled: Float64s = taken_ms[settled]
        return of_settled


def stages_ms(listener: Listener) -> dict[str, Float64s]:
    """Return (n_decodes,) milliseconds per stage, for settled beats that both sides report."""
    decodes, timings = listener.decodes, listener.timings
    of_beat, i_decode, i_timing = np.intersect1d(
        decodes["beat"], timings["beat"], return_indices=True
    )
    settled = of_beat >= listener.heartbeat["settled_from_beat"]
    received = decodes["received"][i_decode[settled]]
    t = {name: timings[name][i_timing[settled]] for name in TIMING_COLUMNS}
    # A bin that is cut before the settle time is over waited for the newest arrival.
    t_ready = np.where(t["is_settled"] > 0, t["t_due"], np.fmax(t["t_arrival"], t["t_window"]))
    t_ready = np.minimum(t_ready, t["t_cut"])
    taken_s = {
        "lsl_age": t["lsl_age_s"],
        "waiting": t_ready - t["t_window"],
        "ingest": t["t_cut"] - t_ready,
        "cut": t["t_tokens"] - t["t_cut"],
        "infer": t["t_done"] - t["t_tokens"],
        "shape": t["t_sent"] - t["t_done"],
        "publish": t["t_out"] - t["t_sent"],
        "receive": received - t["t_out"],
    }
    return {name: 1e3 * values for name, values in taken_s.items()}


def runs(listener: Listener) -> dict[str, Any]:
    """`ahead_share` of the settled beats that were decoded ahead, and `run_ms`, all the same."""
    timings = listener.timings
    settled = timings["beat"] >= listener.heartbeat["settled_from_beat"]
    run_ms, was_ahead = 1e3 * timings["run_s"][settled], timings["was_ahead"][settled]
    share = float(was_ahead.mean()) if len(was_ahead) else math.nan
    return {"ahead_share": share, "run_ms": percentiles(run_ms.tolist())}


def summary(stages: dict[str, Float64s]) -> dict[str, Any]:
    """`NAME_ms`: percentiles of each stage, and of the `SUMS`; and `waiting_share`."""
    sums: dict[str, Float64s] = {
        name: np.add.reduce([stages[part] for part in parts]) for name, parts in SUMS.items()
    }
    # Of the means: medians do not add up to the whole.
    waiting_ms, whole_ms = stages["waiting"], stages["waiting"] + sums["ours"]
    share = float(waiting_ms.sum() / whole_ms.sum()) if len(whole_ms) else math.nan
    return {"waiting_share": share} | {
        f"{name}_ms": percentiles(values[np.isfinite(values)].tolist())
        for name, values in (stages | sums).items()
    }
