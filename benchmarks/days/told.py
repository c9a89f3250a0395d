"""What the days say: each way's targets a minute beside the decoder calibrated each morning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.days.unlabelled import HARMLESS, unlabelled
from benchmarks.days.ways import ANEW, FIXED, FROM_RUN, Scenario

GOAL = 0.9
"""Share of the rate after a calibration each morning."""


def summary(scenario: Scenario) -> dict[str, Any]:
    """Return every day, and the shares over them."""
    judged = [day for day in scenario.days[1:] if not day.is_shift]
    found: dict[str, Any] = {"days": [vars_of(day) for day in scenario.days], "goal": GOAL}
    for name in (FROM_RUN, FIXED):
        shares = [day.per_min[name] / day.per_min[ANEW] for day in judged]
        found[name] = {
            "mean_share": float(np.mean(shares)),
            "least_share": float(np.min(shares)),
            "days_at_goal": int(np.sum(np.array(shares) >= GOAL)),
            "days_judged": len(shares),
        }
    return found | {"unlabelled": unlabelled(scenario)}


def vars_of(day: Any) -> dict[str, Any]:
    """Return a day's fields."""
    return {name: getattr(day, name) for name in day.__dataclass_fields__}


def table(scenario: Scenario) -> str:
    """Return the days in rows, and the shares below."""
    lines = ["day   anew  from runs  share   fixed  share   earlier runs count by"]
    for day in scenario.days:
        anew, runs, fixed = (day.per_min[name] for name in (ANEW, FROM_RUN, FIXED))
        mark = "*" if day.is_shift else " "
        lines.append(
            f"{day.day:3d}{mark} {anew:6.1f} {runs:10.1f} {runs / anew:6.2f} {fixed:7.1f} "
            f"{fixed / anew:6.2f}   {[one['share'] for one in day.made]}"
        )
    found = summary(scenario)
    for name in (FROM_RUN, FIXED):
        one = found[name]
        lines.append(
            f"{name}: {one['mean_share']:.2f} of a calibration each morning (least "
            f"{one['least_share']:.2f}; at least {GOAL:g} on {one['days_at_goal']} of "
            f"{one['days_judged']} days; first days of a shift, *, left out)"
        )
    return "\n".join([*lines, *_unlabelled(found["unlabelled"])]) + "\n"


def draw(scenario: Scenario, path: Path) -> None:
    """Draw targets a minute of each way over the days."""
    from matplotlib.figure import Figure  # only who asks for a figure needs it

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes, days = figure.subplots(), [day.day for day in scenario.days]
    for name, style in ((ANEW, "o-"), (FROM_RUN, "s-"), (FIXED, "^:")):
        rates = [day.per_min[name] for day in scenario.days]
        axes.plot(days, rates, style, markersize=4, linewidth=1, label=name)
    for day in scenario.days:
        if day.is_shift:
            axes.axvline(day.day - 0.5, color="0.6", linewidth=1)
            axes.text(day.day - 0.4, 1, "the array has shifted", rotation=90, fontsize=7)
    axes.set(xlabel="day of the subject", ylabel="targets a minute", ylim=(0, None))
    axes.legend(frameon=False, loc="center")
    figure.savefig(path, dpi=110)


def _unlabelled(found: dict[str, Any]) -> list[str]:
    """Return the number's days in rows, and how it goes with the rate."""
    lines = ["", "never again, by the unlabelled number", "day  targets/min  kept  signal  R2 lost"]
    for day in found["days"]:
        told = "      -        -"
        if day["r2_lost"] is not None:
            told = (
                f"{day['share']:7.2f} {day['r2_lost']:8.3f}{' advised' if day['advised'] else ''}"
            )
        lines.append(f"{day['day']:3d} {day['per_min']:12.1f} {day['kept']:5.2f} {told}")
    r = "-" if found["r"] is None else f"{found['r']:.2f}"
    lines.append(
        f"correlation with targets a minute: {r}; advice on {len(found['false_advice'])} of "
        f"{found['harmless_days']} days that lost under {HARMLESS:.0%}; none on "
        f"{len(found['missed'])} of the others"
    )
    return lines
