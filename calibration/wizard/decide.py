"""Step 6: stated thresholds propose; the operator has the last word, with a reason against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.wizard.config import DecideSection
from calibration.wizard.face import Choice, Page
from calibration.wizard.run import Run

STEP = "decide"
TITLE = "Accept it?"


def run(held: Run) -> dict[str, Any]:
    """Propose, ask, and note who decided what and why."""
    return decided(held, held.result("verify"), held.config.decide)


def decided(held: Run, verified: Mapping[str, Any], config: DecideSection) -> dict[str, Any]:
    """The same for any decoder that was verified."""
    rules = judge(verified, config)
    proposed = all(rule["holds"] for rule in rules)
    words = {True: "accept", False: "reject"}
    choices = [
        Choice("a", "accept: put it in service"),
        Choice("r", "reject: keep yesterday's"),
    ]
    if not proposed:
        choices.reverse()
    told = f"{words[proposed]}: " + "; ".join(rule["text"] for rule in rules)
    page = Page(STEP, TITLE, _body(rules, proposed), told)
    accepted = held.face.ask(page, choices) == "a"
    reason = "the thresholds hold" if accepted else "the thresholds do not hold"
    if accepted != proposed:
        reason = held.face.write(page, f"Why {words[accepted]}, against the thresholds?")
    return {
        "proposed": words[proposed],
        "decided": words[accepted],
        "by": "thresholds" if held.auto else "operator",
        "reason": reason,
        "rules": rules,
    }


def judge(verified: Mapping[str, Any], config: DecideSection) -> list[dict[str, Any]]:
    """Each threshold with what it was held against."""
    gains = verified["gains"]
    held = (
        ("R2 on held-out trials", verified["decoders"]["today"]["mean"], config.least_r2),
        ("above the shuffled control", gains["shuffled"]["mean"], config.over_shuffled),
        ("above yesterday's decoder", gains["yesterday"]["mean"], config.over_yesterday),
        ("above the Wiener filter", gains["wiener"]["mean"], config.over_wiener),
    )
    return [
        {
            "rule": rule,
            "found": found,
            "least": least,
            "holds": bool(found >= least),
            "text": f"{rule}: {found:+.2f}, at least {least:+.2f}",
        }
        for rule, found, least in held
    ]


def _body(rules: list[dict[str, Any]], proposed: bool) -> Group:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "rule", "found", "at least"):
        table.add_column(column, justify="left" if column in ("", "rule") else "right")
    for rule in rules:
        mark = "[green]holds[/]" if rule["holds"] else "[bold red]fails[/]"
        table.add_row(mark, rule["rule"], f"{rule['found']:+.2f}", f"{rule['least']:+.2f}")
    if proposed:
        verdict = Text("The thresholds propose to accept it.", style="green")
    else:
        verdict = Text("The thresholds propose to reject it.", style="bold red")
    return Group(table, Text(), verdict)
