"""From the daemon's messages to Prometheus's metrics. The only importer of prometheus_client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

UP_S = 3.0
"""Silent for so long, the daemon or the way to it is gone (docs/wire.md)."""
SECONDS = (
    1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 7.5e-3, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1,
    0.2, 0.5, 1.0,
)  # fmt: skip
STAGES: Mapping[str, Callable[[dict[str, Any]], float]] = {
    "settle": lambda t: t["t_cut"] - t["t_window"],
    "overdue": lambda t: t["t_cut"] - t["t_due"],
    "tokens": lambda t: t["t_tokens"] - t["t_cut"],
    "network": lambda t: t["t_done"] - t["t_tokens"],
    "judge": lambda t: t["t_sent"] - t["t_done"],
    "send": lambda t: t["t_out"] - t["t_sent"],
    "after": lambda t: t["t_end"] - t["t_out"],
    "run": lambda t: t["run_s"],
}
_TOTALS = {
    "beats_late": "Beats published late.",
    "beats_skipped": "Beats not published.",
    "spikes_lost": "Sequence numbers that never came.",
    "spikes_ignored": "Spikes of units that `ignore_units` leaves out.",
}
_GAUGES = {
    "settle_seconds": ("settle_ms", 1e-3, "Longest wait for a bin's spikes."),
    "source_delay_seconds": ("delay_ms", 1e-3, "99.9 % of spikes need so long to arrive."),
    "source_disorder_seconds": ("disorder_ms", 1e-3, "Spikes fall behind later ones by so much."),
    "hop_seconds": ("hop_ms", 1e-3, "From one beat to the next."),
    "spikes_pending": ("spikes_pending", 1.0, "Spikes that wait for their bin."),
    "clock_offset_seconds": ("clock_offset_s", 1.0, "Added to the sender's stamps."),
    "clock_uncertainty_seconds": ("clock_uncertainty_s", 1.0, "Of that measurement."),
    "recorded": ("recorded", 1.0, "1 while the run is recorded."),
    "memory_bytes": ("memory_mb", 1e6, "Memory that the daemon holds."),
}
_TOLD = ("run_id", "decoder_id", "checksum", "backend", "precision", "source")


class WireCollector(Collector):
    """Metrics of one daemon; one thread feeds it, another one reads.

    Args:
        registry: where it makes itself known.
        now: the daemon's clock, by this machine's.
    """

    def __init__(self, registry: CollectorRegistry, now: Callable[[], float]) -> None:
        self._now, self._heartbeat, self._t_heard_s = now, dict[str, Any](), float("-inf")
        self._run_id, self._seq = "", 0
        self._decodes = Counter(
            "spikeloop_decodes", "Decodes received.", ("validity", "reason"), registry=registry
        )
        self._lost = Counter(
            "spikeloop_decodes_lost", "Decodes lost on their way to here.", registry=registry
        )
        self._events = Counter("spikeloop_events", "Events.", ("event",), registry=registry)
        self._tokens = Counter("spikeloop_tokens", "Tokens decoded.", registry=registry)
        self._end_to_end = Histogram(
            "spikeloop_end_to_end_seconds", "From a window's end to its decode being here.",
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self._stage = Histogram(
            "spikeloop_stage_seconds", "Where the time of a beat goes.", ("stage",),
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self._take = {
            "decode": self._take_decode,
            "timing": self._take_timing,
            "event": lambda m: self._events.labels(m["event"]).inc(),
            "heartbeat": self._take_heartbeat,
        }
        registry.register(self)

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics that it wants to hear."""
        return tuple(self._take)

    def take(self, topic: str, message: dict[str, Any]) -> None:
        """Count a message."""
        self._t_heard_s = self._now()
        self._take[topic](message)

    def _take_decode(self, decode: dict[str, Any]) -> None:
        self._end_to_end.observe(max(0.0, self._t_heard_s - decode["t_window"]))
        self._decodes.labels(decode["validity"], decode["reason"]).inc()
        self._tokens.inc(decode["tokens"])
        if decode["run_id"] == self._run_id:
            self._lost.inc(max(0, decode["seq"] - self._seq - 1))
        self._run_id, self._seq = decode["run_id"], decode["seq"]

    def _take_timing(self, timing: dict[str, Any]) -> None:
        for stage, seconds in STAGES.items():
            self._stage.labels(stage).observe(max(0.0, seconds(timing)))

    def _take_heartbeat(self, heartbeat: dict[str, Any]) -> None:
        self._heartbeat = heartbeat

    def collect(self) -> Iterator[Metric]:
        """Yield what the newest heartbeat tells, when Prometheus asks."""
        told, silent_s = self._heartbeat, self._now() - self._t_heard_s
        up = float(silent_s < UP_S)
        yield GaugeMetricFamily("spikeloop_up", "1 while the daemon is heard of.", up)
        if silent_s < float("inf"):
            yield GaugeMetricFamily("spikeloop_silent_seconds", "Since the last message.", silent_s)
        if not told:
            return
        info = GaugeMetricFamily("spikeloop_run_info", "What runs.", labels=_TOLD)
        info.add_metric([str(told[name]) for name in _TOLD], 1.0)
        yield info
        for name, text in _TOTALS.items():
            yield CounterMetricFamily(f"spikeloop_{name}", text, told[name])
        spikes = CounterMetricFamily("spikeloop_spikes", "Spikes by their fate.", labels=["fate"])
        for fate, n in told["fates"].items():
            spikes.add_metric([fate], n)
        yield spikes
        yield from _labelled(
            ("cut_share", "rule", "Bins of the last second by what cut them.", told["cut_shares"]),
            ("rejected_share", "fate", "Spikes of the last second not taken.", told["shares"]),
            ("flag", "flag", "Parts that failed.", dict.fromkeys(told["flags"], 1.0)),
        )
        for name, (field, factor, text) in _GAUGES.items():
            if told.get(field) is not None:
                yield GaugeMetricFamily(f"spikeloop_{name}", text, factor * told[field])


def _labelled(*families: tuple[str, str, str, Mapping[str, float]]) -> Iterator[Metric]:
    for name, label, text, values in families:
        family = GaugeMetricFamily(f"spikeloop_{name}", text, labels=[label])
        for which, value in values.items():
            family.add_metric([which], value)
        yield family
