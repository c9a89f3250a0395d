"""Open-loop calibration, and what driving adds to it, on the simulated subject without sockets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.days.closed_loop import drive
from calibration.adaptation.adapt import adapt
from calibration.wizard.behavior import pace_of, with_intention
from streams.sessions.convert.convert import joined
from streams.sessions.nwb.writer import write_session
from streams.simulation.openloop import record_open_loop

BASE = Path(__file__).parents[2] / "configs" / "bundles" / "demo"
SUBJECT, DAY = 1, 25
OPEN_LOOP_S, HELD_OUT_S, DRIVING_S, JUDGED_S = 15.0, 10.0, 90.0, 60.0
ASSIST = (0.5, 0.25, 0.0)
ON_TARGET_CM = 0.5
LENGTHS = f"open loop {OPEN_LOOP_S:g} s, driving {DRIVING_S:g} s, judged over {JUDGED_S:g} s"


@dataclass(frozen=True, slots=True)
class Pair:
    """Targets a minute with the decoder of the open loop alone, and with that of driving too.

    Attributes:
        open_loop_per_min: of the short open loop.
        driven_per_min: of the same and driving.
        as_long_per_min: of an open loop that lasts as long as both.
    """

    open_loop_per_min: float
    driven_per_min: float
    as_long_per_min: float

    @property
    def gain(self) -> float:
        """Of driving."""
        return self.driven_per_min - self.open_loop_per_min


def recalibrated(folder: Path, seed: int) -> Pair:
    """One seed: of the subject's noise, targets and everything that is drawn."""
    folder.mkdir(parents=True)
    collected = record_open_loop(
        SUBJECT, DAY, (OPEN_LOOP_S + HELD_OUT_S) / 60.0, task="centre-out", seed=100 + seed
    )
    write_session(collected, folder / "open-loop.nwb")
    _adapt(folder, BASE, "open-loop", f"{OPEN_LOOP_S}-{collected.duration_s}", seed)
    opened = folder / "open-loop"
    driven = drive(opened, SUBJECT, DAY, DRIVING_S, seed=300 + seed, assist=ASSIST)
    pace = pace_of(collected, "cursor")
    meant = joined([collected, with_intention(driven.session, "cursor", pace, ON_TARGET_CM)])
    write_session(meant, folder / "driven.nwb")
    held_out = f"{meant.duration_s - HELD_OUT_S}-{meant.duration_s}"
    _adapt(folder, opened, "driven", held_out, seed)
    _open_loop_as_long(folder, seed)
    rates = [
        drive(folder / name, SUBJECT, DAY, JUDGED_S, seed=200 + seed).per_min
        for name in ("open-loop", "driven", "as-long")
    ]
    return Pair(*rates)


def _open_loop_as_long(folder: Path, seed: int) -> None:
    learnt_s = OPEN_LOOP_S + DRIVING_S
    session = record_open_loop(
        SUBJECT, DAY, (learnt_s + HELD_OUT_S) / 60.0, task="centre-out", seed=100 + seed
    )
    write_session(session, folder / "as-long.nwb")
    _adapt(folder, BASE, "as-long", f"{learnt_s}-{session.duration_s}", seed)


def _adapt(folder: Path, base: Path, name: str, test: str, seed: int) -> None:
    adapt(
        base,
        folder / f"{name}.nwb",
        out=folder / name,
        seconds=1e6,
        same_array=True,
        test=test,
        seed=seed,
    )
