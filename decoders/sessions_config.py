"""`[sessions]` and `split` in the training config: recordings, and what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic

from streams.sessions.choice import CountChoice, SessionChoice, TrialChoice, UnitChoice

Positive = Annotated[float, pydantic.Field(gt=0)]
Share = Annotated[float, pydantic.Field(ge=0, lt=1)]
Natural = Annotated[int, pydantic.Field(ge=1)]


class Section(pydantic.BaseModel):
    """A config table: frozen, unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Simulated(Section):
    """A simulated subject's days, written into the run directory as NWB before training.

    `styles`: how the hand moves; one session each per day, `minutes` long.
    """

    subject: Annotated[int, pydantic.Field(ge=0)]
    days: tuple[int, ...]
    minutes: Positive
    n_units: Natural = 96
    task: Literal["centre-out", "random"] = "random"
    styles: tuple[Literal["reach", "steer"], ...] = ("reach",)


def _as_table(key: str) -> pydantic.BeforeValidator:
    """Let a text stand for a table with that one key."""
    return pydantic.BeforeValidator(lambda given: {key: given} if isinstance(given, str) else given)


class Units(Section):
    """Choice of units and their keys; `units = "PATH"` gives the table alone.

    `where`: condition on the table's columns, as "quality == 'good' and snr > 2". `key`: a column,
    "electrodes", or two columns as in "probe:id"; the table's ids if empty. `ticks_per_s`: how much
    spike times grow in a second, 1000 for milliseconds.
    """

    table: str = ""
    where: str = ""
    key: str = ""
    ticks_per_s: Positive = 1.0


class TrialTable(Section):
    """Choice of the trial table; `trials = "PATH"` gives the table alone."""

    table: str = ""
    ticks_per_s: Positive = 1.0


class Counts(Section):
    """A series with binned counts that stands for the units; `counts = "PATH"` gives it alone.

    `stamp`: the bin's end that its time stamp is. "start" cannot let a decoder see ahead.
    """

    series: str
    stamp: Literal["start", "end"] = "start"


class Sessions(Section):
    """Choice of recordings, and what is read from them.

    `same_array`: a unit key names the same channel in every session, so that its embedding is a
    part shared between sessions plus the session's own. `mask`: a 0 and 1 series by its NWB
    path; samples at 0 are not learnt from, not scored, or neither, as `mask_for` says.
    `between_s`: seconds outside which nothing is read. `falcon`: read as the FALCON
    benchmark reads that task's files: counts in 20 ms bins, `u0` the first unit row,
    scored where `eval_mask` is 1.
    """

    glob: tuple[str, ...] = ()
    simulated: Simulated | None = None
    same_array: bool = False
    max_gap_s: Positive = 0.1
    mask: str = ""
    mask_for: Literal["both", "train", "score"] = "both"
    units: Annotated[Units, _as_table("table")] = Units()
    trials: Annotated[TrialTable, _as_table("table")] = TrialTable()
    counts: Annotated[Counts, _as_table("series")] | None = None
    behavior_ticks_per_s: Positive = 1.0
    between_s: tuple[float, float] | None = None
    falcon: Literal["", "m1", "m2", "h1"] = ""

    def choice(self, behavior: Sequence[str] | None) -> SessionChoice:
        """Parts to read from each recording, with these behaviours; None reads all."""
        return SessionChoice(
            behavior=None if behavior is None else tuple(dict.fromkeys(behavior)),
            mask=self.mask,
            units=UnitChoice(**self.units.model_dump()),
            trials=TrialChoice(**self.trials.model_dump()),
            counts=CountChoice(**self.counts.model_dump()) if self.counts else CountChoice(),
            behavior_ticks_per_s=self.behavior_ticks_per_s,
            between_s=self.between_s,
            falcon=self.falcon,
        )

    @pydantic.model_validator(mode="after")
    def _falcon_says_all(self) -> Sessions:
        told = {k for k, value in self if value != Sessions.model_fields[k].get_default()}
        others = ", ".join(sorted(told - {"glob", "same_array", "max_gap_s", "falcon"}))
        if self.falcon and others:
            raise ValueError(f"falcon = {self.falcon!r} says what is read: leave out {others}")
        return self

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Sessions:
        if self.between_s is not None and not self.between_s[0] < self.between_s[1]:
            raise ValueError(f"between_s {list(self.between_s)} must be [START, STOP]")
        return self


class Split(Section):
    """The train and the test part, by trials or by files.

    `train`, `test`: conditions on the trial table's columns, as "split == 'train'".
    `test_files`: patterns for files that are tested whole and never learnt from.
    """

    train: str = ""
    test: str = ""
    test_files: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Split:
        by_trials = bool(self.train) and bool(self.test)
        if by_trials == bool(self.test_files) or bool(self.train) != bool(self.test):
            raise ValueError("give train and test (conditions on trials), or test_files")
        return self


def written_out(split: str | Split) -> str | Split:
    """`trials:COLUMN` as conditions; any other split as it is."""
    if isinstance(split, str) and split.startswith("trials:"):
        column = split.removeprefix("trials:")
        return Split(train=f"{column} == 'train'", test=f"{column} in ['val', 'test']")
    return split


SplitText = Annotated[str, pydantic.Field(pattern=r"^(last:0\.\d+|none|trials:\w+)$")]
SPLIT_KINDS = ("split as a text", "split as a table")


def _split_kind(given: object) -> str:
    return SPLIT_KINDS[0] if isinstance(given, str) else SPLIT_KINDS[1]


SplitChoice = Annotated[
    Annotated[SplitText, pydantic.Tag(SPLIT_KINDS[0])]
    | Annotated[Split, pydantic.Tag(SPLIT_KINDS[1])],
    pydantic.Discriminator(_split_kind),
]
