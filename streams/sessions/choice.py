"""Choices for reading a recording: its parts, and how to understand them.

A config's `[sessions]` has the same tables, so they are checked here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Ticks = Annotated[float, Field(gt=0)]
"""How much times grow in a second: 1000 for milliseconds."""


class Section(BaseModel):
    """A config table: frozen, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitChoice(Section):
    """Choice of units.

    Attributes:
        table: the table's path; "" for the usual one.
        where: condition on the table's columns, see `conditions`; "" takes all rows.
        key: what names a unit: a column, `electrodes`, or two columns as in `probe:id`; "" for the
            table's ids.
        ticks_per_s: of spike times.
    """

    table: str = ""
    where: str = ""
    key: str = ""
    ticks_per_s: Ticks = 1.0


class TrialChoice(Section):
    """Choice of trials.

    Attributes:
        table: the table's path; "" for the usual one, if there is one.
        ticks_per_s: of the table's times.
    """

    table: str = ""
    ticks_per_s: Ticks = 1.0


class CountChoice(Section):
    """A series with binned counts that stands for the units.

    Attributes:
        series: its path.
        stamp: the bin's end that its time stamp is; "start" cannot let a decoder see ahead.
    """

    series: str
    stamp: Literal["start", "end"] = "start"


def _as_table(key: str) -> BeforeValidator:
    """Let a text stand for a table with that one key, as in `units = "PATH"`."""
    return BeforeValidator(lambda given: {key: given} if isinstance(given, str) else given)


class FileChoice(Section):
    """Parts to read from a file, but for its behaviour.

    Attributes:
        mask: name of a series with 0 and 1; samples at 0 are neither learnt from nor scored.
        units: which units.
        trials: which trials.
        counts: a count series instead of units.
        behavior_ticks_per_s: of behaviour's time stamps.
        between_s: file seconds outside which nothing is read; None for all.
        falcon: the FALCON task, as whose file it is read: its bins, behaviour and
            mask, and nothing else from here; "" for other files.
    """

    mask: str = ""
    units: Annotated[UnitChoice, _as_table("table")] = UnitChoice()
    trials: Annotated[TrialChoice, _as_table("table")] = TrialChoice()
    counts: Annotated[CountChoice, _as_table("series")] | None = None
    behavior_ticks_per_s: Ticks = 1.0
    between_s: tuple[float, float] | None = None
    falcon: Literal["", "m1", "m2", "h1"] = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.between_s is not None and not self.between_s[0] < self.between_s[1]:
            raise ValueError(f"between_s {list(self.between_s)} must be [START, STOP]")
        return self


class SessionChoice(FileChoice):
    """Parts to read from a recording.

    Attributes:
        behavior: series names, as `Session.signal` takes them; None reads every series that
            can be read.
    """

    behavior: tuple[str, ...] | None = None


EVERYTHING = SessionChoice()
