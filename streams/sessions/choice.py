"""What of a recording is read, and how it is to be understood."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnitChoice:
    """Which units.

    Attributes:
        table: path of the table; "" for the usual one.
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
    """Which trials.

    Attributes:
        table: path of the table; "" for the usual one, if there is one.
        ticks_per_s: how much the table's times grow in a second.
    """

    table: str = ""
    ticks_per_s: float = 1.0


@dataclass(frozen=True, slots=True)
class CountChoice:
    """A series of binned counts that stands for the units.

    Attributes:
        series: its path; "" to read units.
        stamp: whether a bin's time stamp is its "start" or its "end".
    """

    series: str = ""
    stamp: str = "start"


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """What of a recording is read.

    Attributes:
        behavior: names of the series, as `Session.signal` takes them; None reads every series that
            can be read.
        mask: name of a series of 0 and 1; what it holds at 0 is neither learnt from nor scored.
        units: which units.
        trials: which trials.
        counts: a series of counts instead of units.
        behavior_ticks_per_s: how much the time stamps of behaviour grow in a second.
        between_s: seconds of the file outside which nothing is read; None for all.
        falcon: task of the FALCON benchmark, as whose file it is read: its bins, behaviour and
            mask, and nothing else of this; "" for other files.
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
