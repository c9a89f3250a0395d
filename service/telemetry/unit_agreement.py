"""R2 that changes of the units' tuning cost since calibration, told without labels; and advice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.manifest import Manifest
from service.guard import Guard
from service.loop.decode_loop import DecodeLoop
from service.telemetry.run_telemetry import RunTelemetry
from streams.clock import MonotonicClock
from streams.messages import Float64s, Int64s
from streams.spikes.agreement import (
    AT_LEAST_S,
    BIN_S,
    OVER_S,
    Moved,
    Reference,
    SharedSums,
    moved_since,
)

ADVISED_R2 = 0.05
"""From such a loss on a calibration is advised (seven simulated days: docs/calibration.md)."""
AGAIN_BELOW = 0.5
"""Advice is given again once the loss was below this share of it."""
LATEST = 1.5
"""A bin that took longer than so many usual ones is no bin: the thread was kept waiting."""
Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """The run, as far as the watch needs it.

    Attributes:
        manifest: of the decoder in service.
        n_spikes: (n_source_units,) since the run's start.
        is_ok: whether decodes may be trusted.
    """

    manifest: Manifest
    n_spikes: Int64s
    is_ok: bool


class UnitAgreement:
    """Compares units with calibration's, a bin at a time; one thread owns it.

    Args:
        keys: the source's growing key list.

    Attributes:
        moved: the newest comparison; None while nothing is known.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.moved: Moved | None = None
        self._keys = keys
        self._id, self._n_keys = "", -1
        self._reference: Reference | None = None
        self._sums: SharedSums | None = None
        self._place = np.zeros(0, np.int64)
        self._before: Float64s | None = None
        self._compared_s = 0.0
        self._is_advised = False

    @property
    def seconds(self) -> float:
        """Seconds over which units were compared; 0 where the decoder holds no reference."""
        return 0.0 if self._sums is None else self._sums.seconds

    def take(self, seen: Seen, *, is_whole: bool) -> dict[str, Any] | None:
        """Take in what fired since the last time.

        Args:
            seen: the run.
            is_whole: the time since is a bin.

        Returns:
            The advice to calibrate again, when it is given anew.
        """
        if seen.manifest.id != self._id:
            self._begin(seen.manifest)
        if self._reference is None or self._sums is None:
            return None
        total = self._of_reference(seen.n_spikes)
        before, self._before = self._before, total
        if before is None or not is_whole or not seen.is_ok:
            self._sums.forget_block()
            return None
        self._sums.add(total - before)
        if self._sums.seconds < AT_LEAST_S or not self._sums.is_block_begun_anew:
            return None
        self.moved = moved_since(self._reference, self._sums)
        return self._advice()

    def _begin(self, manifest: Manifest) -> None:
        self._id, self.moved, self._is_advised = manifest.id, None, False
        self._reference, self._sums, self._before = reference_in(manifest), None, None
        if self._reference is not None:
            held = self._reference
            self._sums = SharedSums(held.mean, held.deviation, held.readout, OVER_S)
            self._n_keys = -1

    def _of_reference(self, n_spikes: Int64s) -> Float64s:
        """(U,) spikes of the reference's units; 0 of those that the source never showed."""
        assert self._reference is not None
        if len(n_spikes) != self._n_keys:
            self._n_keys = len(n_spikes)
            place = {key: i for i, key in enumerate(self._keys[: self._n_keys])}
            # The last place is a unit that never fires.
            self._place = np.array(
                [place.get(key, self._n_keys) for key in self._reference.keys], np.int64
            )
        held: Float64s = np.append(n_spikes, 0)[self._place].astype(np.float64)
        return held

    def _advice(self) -> dict[str, Any] | None:
        if self.moved is None:
            return None
        if self.moved.r2_lost < AGAIN_BELOW * ADVISED_R2:
            self._is_advised = False
        if self._is_advised or self.moved.r2_lost < ADVISED_R2:
            return None
        self._is_advised = True
        lost, share = round(self.moved.r2_lost, 3), round(self.moved.share, 3)
        return {
            "r2_gain": lost,
            "share": share,
            "warning": f"units changed since calibration: {share:.0%} of their signal is as it "
            f"was. A calibration would gain about {lost:.2f} of R2: `spikeloop calibrate "
            "--from-run` with today's recordings, or a calibration block",
        }

    def report(self) -> dict[str, Any]:
        """Return what `status` tells."""
        moved = self.moved
        return {
            "seconds": self.seconds,
            "share": None if moved is None else moved.share,
            "r2_lost": None if moved is None else moved.r2_lost,
            "advised": self._is_advised,
        }


def reference_in(manifest: Manifest) -> Reference | None:
    """Return the units at calibration; None where the decoder does not hold them."""
    told = manifest.training.get("agreement")
    try:
        return Reference.from_json(told) if isinstance(told, dict) else None
    except (ValueError, KeyError, TypeError):
        return None


class AgreementWatch:
    """Takes in what fired, ten times a second, from a thread of its own.

    Args:
        loop: whose decoder is in service.
        telemetry: counts spikes.
        keys: the source's growing key list.
        report: called with (event, detail).

    Attributes:
        units: the comparison.
        failure: why nothing is compared any more; "" while all is well.
    """

    def __init__(
        self,
        loop: DecodeLoop,
        telemetry: RunTelemetry,
        keys: Sequence[str],
        report: Report,
    ) -> None:
        self.units, self.failure = UnitAgreement(keys), ""
        self._loop, self._telemetry = loop, telemetry
        self._clock, self._report = MonotonicClock(), report
        self._stopping = threading.Event()

    @property
    def r2_lost(self) -> float | None:
        """The heartbeat's number; None while nothing is known."""
        moved = self.units.moved
        return None if moved is None or self.failure else round(moved.r2_lost, 4)

    def start(self) -> None:
        """Compare until told to stop."""
        threading.Thread(target=self._run, name="units", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end soon."""
        self._stopping.set()

    def _run(self) -> None:
        with Guard(Exception, self._fail):  # decodes go on without the number
            t_before_s, t_due_s = self._clock.now(), self._clock.now()
            while not self._stopping.is_set():
                t_due_s = max(t_due_s + BIN_S, self._clock.now())
                self._stopping.wait(t_due_s - self._clock.now())
                t_now_s = self._clock.now()
                is_whole = t_now_s - t_before_s < LATEST * BIN_S
                t_before_s = t_now_s
                advice = self.units.take(self._seen(), is_whole=is_whole)
                if advice is not None:
                    self._report("recalibration_advised", advice)

    def _seen(self) -> Seen:
        loop = self._loop
        return Seen(loop.decoder.manifest, self._telemetry.n_spikes_of_unit, not loop.reason)

    def _fail(self, error: Exception) -> None:
        self.failure = f"{type(error).__name__}: {error}"
        self._report("units_uncompared", {"warning": f"units are not compared: {self.failure}"})
