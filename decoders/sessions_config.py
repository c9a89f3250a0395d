"""`[sessions]` and `split` in the training config: recordings, and what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic

from streams.sessions.choice import FileChoice, Section, SessionChoice

Positive = Annotated[float, pydantic.Field(gt=0)]
Share = Annotated[float, pydantic.Field(ge=0, lt=1)]
Natural = Annotated[int, pydantic.Field(ge=1)]


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


class Sessions(FileChoice):
    """Choice of recordings, and what is read from them.

    `same_array`: a unit key names the same channel in every session, so that its embedding is a
    part shared between sessions plus the session's own. `mask_for`: samples where `mask` is 0 are
    not learnt from, not scored, or neither. `falcon`: read as the FALCON benchmark reads that
    task's files: counts in 20 ms bins, `u0` the first unit row, scored where `eval_mask` is 1.
    """

    glob: tuple[str, ...] = ()
    simulated: Simulated | None = None
    same_array: bool = False
    max_gap_s: Positive = 0.1
    mask_for: Literal["both", "train", "score"] = "both"

    def choice(self, behavior: Sequence[str] | None) -> SessionChoice:
        """Parts to read from each recording, with these behaviours; None reads all."""
        return SessionChoice(
            behavior=None if behavior is None else tuple(dict.fromkeys(behavior)),
            **{name: getattr(self, name) for name in FileChoice.model_fields},
        )

    @pydantic.model_validator(mode="after")
    def _falcon_says_all(self) -> Sessions:
        told = {k for k, value in self if value != Sessions.model_fields[k].get_default()}
        others = ", ".join(sorted(told - {"glob", "same_array", "max_gap_s", "falcon"}))
        if self.falcon and others:
            raise ValueError(f"falcon = {self.falcon!r} says what is read: leave out {others}")
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
