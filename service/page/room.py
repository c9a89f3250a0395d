"""All that the page knows: inputs go in, what browsers are sent comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from export.bundle import DecoderBundle
from service.page.inputs.wire import Heard
from service.page.panels.decoded import DecodedPanel
from service.page.panels.events import EventsPanel
from service.page.panels.influence import InfluencePanel
from service.page.panels.latency import LatencyPanel
from service.page.panels.raster import Raster, Rows, by_channel, by_direction
from service.page.panels.spikes import SpikesPanel
from service.page.panels.trials import TrialsPanel
from service.page.panels.units import UnitsPanel
from service.page.panels.validity import ValidityPanel
from streams.messages import Float64s

ORDERS = ("channel", "direction")
ORDERED_EVERY_S, SLOW_EVERY_S, SAMPLED_EVERY_S = 5.0, 0.4, 1.0


class Panel(Protocol):
    """A taker of the daemon's messages."""

    def take(self, heard: Heard) -> None:
        """Take in one message."""


class Room:
    """Owned by one thread; shared by all browsers.

    Args:
        now_s: seconds on our clock.
        bundle: the decoder, where it lies on this machine.
        is_live: a daemon is shown, not a recorded run.
    """

    def __init__(
        self, now_s: float, bundle: DecoderBundle | None = None, *, is_live: bool = True
    ) -> None:
        self.validity = ValidityPanel(is_live=is_live)
        self.events, self.latency = EventsPanel(), LatencyPanel()
        self.spikes, self.decoded, self.units = SpikesPanel(), DecodedPanel(), UnitsPanel(bundle)
        self.influence = InfluencePanel(bundle)
        self.trials, self.raster = TrialsPanel(self.decoded.place_at), Raster(now_s)
        self._panels: tuple[Panel, ...] = (
            self.validity, self.events, self.latency, self.spikes, self.decoded,
            self.influence,
        )  # fmt: skip
        self.keys: list[str] = []
        self.status: Mapping[str, Any] = {}
        self.trouble: dict[str, str] = {}
        self.rows: dict[str, Rows] = {}
        # Grows when rows are others, or look otherwise.
        self.version = 0
        self._marks = np.zeros(0, np.int64)
        self._t_ordered_s = self._t_sampled_s = float("-inf")

    @property
    def source(self) -> str:
        """Name of the stream of spikes; "" until the daemon said it."""
        return str(self.validity.heartbeat.get("source", ""))

    def take(self, heard: Heard) -> None:
        """Take in one message of the daemon."""
        for panel in self._panels:
            panel.take(heard)

    def add_spikes(self, unit: np.ndarray, t_s: Float64s, count: np.ndarray) -> None:
        """Take in spikes: (n,) indices into `keys`, stamps on our clock, and counts."""
        self.raster.add(unit, t_s, count, len(self.keys))
        self.units.add(unit, count, len(self.keys))
        self.influence.add(t_s, self.keys, unit, count)

    def tick(self, now_s: float) -> dict[str, Any]:
        """Go on to now; return what changes with every picture."""
        self.raster.advance(now_s)
        self.influence.go_on(now_s)
        self.units.close_bin(now_s, self.decoded.velocity_now(now_s))
        if now_s - self._t_sampled_s > SAMPLED_EVERY_S:
            self._t_sampled_s = now_s
            self.units.sample(now_s)
            marks = self.units.marks(self.keys, self.status)
            self.version += not np.array_equal(marks, self._marks)
            self._marks = marks
        if now_s - self._t_ordered_s > ORDERED_EVERY_S or self._lacks_units():
            self._t_ordered_s = now_s
            self._order()
        told = self.mark_validity(now_s)
        return {"kind": "fast", "now": now_s} | told | self.decoded.fast(now_s)

    def mark_validity(self, now_s: float) -> dict[str, Any]:
        """Note the validity now for the timeline; return it."""
        told = self.validity.fast(now_s, self.trouble.get("wire", ""))
        self.events.mark_validity(now_s, told["validity"])
        return told

    def _lacks_units(self) -> bool:
        return not self.rows or len(self.rows["channel"].order) != len(self.keys)

    def _order(self) -> None:
        n = len(self.keys)
        pushes = self.influence.directions(self.keys)
        angle, is_tuned = pushes or self.units.tuning.directions()[:2]
        lacking = max(0, n - len(angle))
        angle, is_tuned = np.pad(angle, (0, lacking)), np.pad(is_tuned, (0, lacking))
        found = {
            "channel": by_channel(self.keys),
            "direction": by_direction(angle[:n], is_tuned[:n]),
        }
        for name, order in found.items():
            if name not in self.rows or not np.array_equal(self.rows[name].order, order):
                self.rows[name] = Rows(order)
                self.version += 1

    def slow(self, now_s: float) -> dict[str, Any]:
        """Return what changes a few times a second."""
        shares = self.influence.shares(self.keys)
        pushes = self.influence.directions(self.keys)
        return {
            "kind": "slow",
            "validity": self.validity.slow(now_s),
            "latency": self.latency.slow(now_s, self.validity.hop_s),
            "spikes": self.spikes.slow(now_s),
            "decoded": self.decoded.slow(now_s),
            "trials": self.trials.slow(),
            "units": self.units.slow(self.keys, self._marks_of_all(), self.status, shares, pushes),
            "map": self._map(shares) | self.influence.slow(),
            "events": self.events.slow(now_s),
            "trouble": self.trouble,
            "shaping": self.status.get("shaping", {}),
            "lead_s": self.status.get("lead_s"),
            "paused": self.status.get("paused"),
            "shadow": self.status.get("shadow", ""),
            "standby": self.status.get("standby", ""),
        }

    def _map(self, shares: np.ndarray | None) -> dict[str, Any]:
        """Return a value for each row by channel: influence, or rates while that is unknown."""
        rows = self.rows.get("channel")
        if rows is None or not len(rows.order):
            return {"labels": [], "values": []}
        values = self.units.rates_hz()[: len(self.keys)] if shares is None else shares
        values = np.pad(values, (0, len(self.keys) - len(values)))[rows.order]
        held = np.add.reduceat(values, rows.starts)
        return {"labels": rows.labels(self.keys), "values": np.round(held, 5).tolist()}

    def _marks_of_all(self) -> np.ndarray:
        return np.pad(self._marks, (0, max(0, len(self.keys) - len(self._marks))))

    def rows_told(self, order: str) -> dict[str, Any]:
        """Return the raster's rows in an order: their labels and marks."""
        rows = self.rows.get(order)
        if rows is None:
            return {"kind": "rows", "order": order, "labels": [], "marks": []}
        marks = rows.worst(self._marks_of_all())
        return {"kind": "rows", "order": order, "labels": rows.labels(self.keys), "marks": marks}
