"""Three ways to a day's decoder: calibrated each morning, from driving alone, and never again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.days.closed_loop import Driven, drive
from calibration.adaptation.adapt import write_adapted
from calibration.adaptation.adapted import Options
from calibration.adaptation.calibration_data import prepare
from calibration.adaptation.gradient.streaming import adapt_streaming
from calibration.from_run.make import Made, make_from_run
from calibration.wizard.behavior import pace_of
from export.bundle import open_bundle
from service.redecode.driven import session_of_driven_run
from streams.files import write_whole
from streams.sessions.convert.convert import Reading
from streams.sessions.nwb.writer import write_session
from streams.simulation.cortex import UPHEAVAL_EVERY_DAYS
from streams.simulation.openloop import record_open_loop

ANEW, FROM_RUN, FIXED = "calibrated each morning", "from runs only", "never again"
LEARNT_S, HELD_OUT_S = 60.0, 20.0
BLOCKS, MOST_BLOCKS = 2, 6
"""A day's driving is recorded in so many runs; of so many, earlier days' too, is learnt."""
ASSIST = 0.5
"""The task's help in a day's later block, after one in which the cursor was stuck."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Choices:
    """Choices of the scenario.

    Attributes:
        subject: which simulated subject.
        seed: for noise and targets of all days.
        first_day: calibrated in open loop for all ways.
        n_days: in a row.
        minutes: driven each day by each way.
        base: the decoder that all begin with.
    """

    subject: int
    seed: int
    first_day: int
    n_days: int
    minutes: float
    base: str


@dataclass(slots=True)
class Day:
    """One day.

    Attributes:
        day: of the subject.
        is_shift: whether the array has shifted since the day before.
        per_min: targets a minute by each way.
        made: about the decoders that were made from runs, one after each block.
    """

    day: int
    is_shift: bool
    per_min: dict[str, float] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)


class Scenario:
    """Days in a row, kept in a folder: one that was ended goes on where it was.

    Args:
        folder: for sessions, decoders and `days.json`.
        choices: of the scenario; those in the folder win nothing, they must be the same.

    Raises:
        ValueError: the folder holds days of another scenario.
    """

    def __init__(self, folder: Path, choices: Choices) -> None:
        self.folder, self.choices = folder, choices
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "days.json"
        self.days: list[Day] = []
        self.serving: dict[str, str] = {}
        if self._file.exists():
            held = json.loads(self._file.read_text())
            # More days of the same scenario may be asked for.
            if held["choices"] | {"n_days": choices.n_days} != asdict(choices):
                raise ValueError(f"{folder} holds days of another scenario: {held['choices']}")
            self.days = [Day(**one) for one in held["days"]]
            self.serving = held["serving"]

    def go_on(self, say: Say) -> None:
        """Live the days that are not done."""
        while len(self.days) < self.choices.n_days:
            day = self._live(self.choices.first_day + len(self.days))
            self.days.append(day)
            self._keep()
            rates = ", ".join(f"{name} {rate:.1f}" for name, rate in day.per_min.items())
            say(f"day {day.day}{' (array shifted)' if day.is_shift else ''}: {rates};")
            for one in day.made:
                say(f"    {one}")

    def _live(self, i_day: int) -> Day:
        day = Day(i_day, i_day % UPHEAVAL_EVERY_DAYS == 0)
        anew = self._calibrated(i_day)
        if not self.serving:
            self.serving = {FROM_RUN: str(anew), FIXED: str(anew)}
        # A decoder that two ways have drives once.
        same = {}
        for name, path in {ANEW: str(anew), FIXED: self.serving[FIXED]}.items():
            if path not in same:
                same[path] = [self._driven(Path(path), i_day, i) for i in range(BLOCKS)]
            day.per_min[name] = _per_min(same[path])
        # What the decoder that stays was driven with: the unlabelled number is judged on it.
        for i, one in enumerate(same[self.serving[FIXED]]):
            write_session(one.session, self.folder / f"fixed-{i_day}-{i}.nwb")
        day.per_min[FROM_RUN] = _per_min(self._from_runs(i_day, day))
        return day

    def _from_runs(self, i_day: int, day: Day) -> list[Driven]:
        """Drive the blocks, and make a decoder after each; it serves where it is better."""
        driven, is_stuck = [], False
        for i in range(BLOCKS):
            assist = ASSIST if is_stuck else 0.0
            one = self._driven(Path(self.serving[FROM_RUN]), i_day, i, assist)
            driven.append(one)
            write_session(one.session, self.folder / f"driven-{i_day:02d}-{i}.nwb")
            made = self._made(self.folder / f"made-{i_day:02d}-{i}")
            is_stuck = made.wants_assistance
            if not made.why_not:
                self.serving[FROM_RUN] = str(made.bundle)
            told = {"assist": assist, "per_min": round(one.per_min, 2), **_told(made)}
            day.made.append(told)
        return driven

    def _calibrated(self, i_day: int) -> Path:
        """Make the morning's decoder from a minute of open loop, as the wizard does."""
        chosen, out = self.choices, self.folder / f"anew-{i_day}"
        shutil.rmtree(out, ignore_errors=True)
        collected = record_open_loop(
            chosen.subject,
            i_day,
            (LEARNT_S + HELD_OUT_S) / 60.0,
            task="centre-out",
            seed=1000 + chosen.seed,
        )
        pace = pace_of(collected, "cursor")
        bundle = open_bundle(Path(chosen.base))
        # Only the one that stays tells what it lost, in units of its own score.
        test = f"{LEARNT_S}-{collected.duration_s}" if not self.serving else None
        data = prepare(bundle, collected, LEARNT_S, None, test)
        found = adapt_streaming(bundle, data, Options(True, False, True, chosen.seed, None))
        facts = {"pace": {"top": pace.top, "slow_within": pace.slow_within}}
        write_adapted(out, bundle, data, found, chosen.seed, facts)
        return out

    def _driven(self, decoder: Path, i_day: int, i_block: int, assist: float = 0.0) -> Driven:
        chosen = self.choices
        seed, seconds = 2000 + 100 * i_block + chosen.seed, chosen.minutes * 60.0 / BLOCKS
        return drive(decoder, chosen.subject, i_day, seconds, seed=seed, assist=(assist,))

    def _made(self, out: Path) -> Made:
        """Make a decoder of the newest block and those before."""
        shutil.rmtree(out, ignore_errors=True)
        blocks = sorted(self.folder.glob("driven-*.nwb"))[-MOST_BLOCKS:]
        made = make_from_run(
            blocks,
            Path(self.serving[FROM_RUN]),
            out,
            reading=Reading(),
            read_run=session_of_driven_run,
            seed=self.choices.seed,
        )
        for path in out.glob("*.nwb"):
            path.unlink()
        return made

    def _keep(self) -> None:
        held: Mapping[str, Any] = {
            "choices": asdict(self.choices),
            "serving": self.serving,
            "days": [asdict(day) for day in self.days],
        }
        write_whole(self._file, json.dumps(held))


def _per_min(driven: Sequence[Driven]) -> float:
    return 60.0 * sum(one.n_acquired for one in driven) / sum(one.seconds for one in driven)


def _told(made: Made) -> dict[str, Any]:
    found = made.verified
    return {
        "swapped": not made.why_not,
        "why_not": made.why_not,
        "share": made.learnt.share if made.learnt else None,
        "r2": {name: round(one.mean, 3) for name, one in found.decoders.items()},
        "speed": round(found.speed.share, 3) if found.speed else None,
        "total_s": round(made.total_s, 2),
    }
