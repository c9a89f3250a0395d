"""Step 6: stated thresholds propose; the operator decides, with a reason against them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.wizard.config import DecideSection
from calibration.wizard.results import DecideResult, Rule, Verdict, VerifyResult, needed
from calibration.wizard.run import CalibrationRun
from calibration.wizard.ui import Choice, Page

STEP = "decide"
TITLE = "Accept it?"


def step(run: CalibrationRun) -> DecideResult:
    """Propose, ask, and note who decided what and why."""
    return decide(run, needed(run.results.verify), run.config.decide)


def decide(run: CalibrationRun, verified: VerifyResult, config: DecideSection) -> DecideResult:
    """Do the same for any decoder that was verified."""
    rules = judge(verified, config)
    proposed: Verdict = "accept" if all(rule.holds for rule in rules) else "reject"
    choices = [
        Choice("a", "accept: put it in service"),
        Choice("r", "reject: keep yesterday's"),
    ]
    # The first choice is taken where nobody is asked.
    if proposed == "reject":
        choices.reverse()
    line = f"{proposed}: " + "; ".join(rule.text for rule in rules)
    page = Page(STEP, TITLE, _body(rules, proposed), line)
    decided: Verdict = "accept" if run.ui.ask(page, choices) == "a" else "reject"
    reason = f"the thresholds {'hold' if decided == 'accept' else 'do not hold'}"
    if decided != proposed:
        reason = run.ui.write(page, f"Why {decided}, against the thresholds?")
    by = "thresholds" if run.auto else "operator"
    return DecideResult(proposed=proposed, decided=decided, by=by, reason=reason, rules=rules)


def judge(verified: VerifyResult, config: DecideSection) -> list[Rule]:
    """Compare each threshold with what was found."""
    gains = verified.gains
    compared = (
        ("R2 on held-out trials", verified.decoders["today"].mean, config.least_r2),
        ("above the shuffled control", gains["shuffled"].mean, config.over_shuffled),
        ("above yesterday's decoder", gains["yesterday"].mean, config.over_yesterday),
        ("above the Wiener filter", gains["wiener"].mean, config.over_wiener),
    )
    return [
        Rule(rule, found, least, found >= least, f"{rule}: {found:+.2f}, at least {least:+.2f}")
        for rule, found, least in compared
    ]


def _body(rules: Sequence[Rule], proposed: Verdict) -> Group:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "rule", "found", "at least"):
        table.add_column(column, justify="left" if column in ("", "rule") else "right")
    for rule in rules:
        mark = "[green]holds[/]" if rule.holds else "[bold red]fails[/]"
        table.add_row(mark, rule.rule, f"{rule.found:+.2f}", f"{rule.least:+.2f}")
    style = "green" if proposed == "accept" else "bold red"
    return Group(table, Text(), Text(f"The thresholds propose to {proposed} it.", style=style))
