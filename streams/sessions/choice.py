"""Choices for reading a recording: its parts, and how to understand them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnitChoice:
    """Choice of units.

    Attributes:
        table: the table's path; "" for the usual one.
        where: condition on the table's columns, see `conditions`; "" takes all rows.
        key: what names a unit: a column, `electrodes`, or two columns as in `probe:id`; "" for the
            table's ids.
        ticks_per_s: how much the table's times grow in a second: 1000 for milliseconds.
    """

    table: str = ""
    where: str = ""
    key: str = ""
    ticks_per_s: float = 1.0


@dataclass(frozen=True, slots=True)
class TrialChoice:
    """Choice of trials.

    Attributes:
        table: the table's path; "" for the usual one, if there is one.
        ticks_per_s: how much the table's times grow in a second.
    """

    table: str = ""
    ticks_per_s: float = 1.0


@dataclass(frozen=True, slots=True)
class CountChoice:
    """A series with binned counts that stands for the units.

    Attributes:
        series: its path; "" to read units.
        stamp: whether a bin's time stamp is its "start" or its "end".
    """

    series: str = ""
    stamp: str = "start"


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """Parts to read from a recording.

    Attributes:
        behavior: series names, as `Session.signal` takes them; None reads every series that
            can be read.
        mask: name of a series with 0 and 1; samples at 0 are neither learnt from nor scored.
        units: which units.
        trials: which trials.
        counts: a count series instead of units.
        behavior_ticks_per_s: how much behaviour's time stamps grow in a second.
        between_s: file seconds outside which nothing is read; None for all.
        falcon: the FALCON task, as whose file it is read: its bins, behaviour and
            mask, and nothing else from here; "" for other files.
    """

    behavior: tuple[str, ...] | None = None
    mask: str = ""
    units: UnitChoice = UnitChoice()
    trials: TrialChoice = TrialChoice()
    counts: CountChoice = CountChoice()
    behavior_ticks_per_s: float = 1.0
    between_s: tuple[float, float] | None = None
    falcon: str = ""


EVERYTHING = SessionChoice()
