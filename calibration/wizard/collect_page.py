"""What the operator sees while trials are collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calibration.wizard.cues import Cues
from calibration.wizard.curve import Point
from calibration.wizard.run import Run
from calibration.wizard.trials import NAMES, Count

if TYPE_CHECKING:
    from calibration.wizard.collect import Seen

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 40


def body_of(held: Run, seen: Seen, cues: Cues | None) -> Group:
    """Counts, balance, learning curve, and what is wrong."""
    config = held.config.collect
    wanted_s = config.learn_s + config.verify_s
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(width=16)
    table.add_column(width=WIDTH)
    table.add_column()
    table.add_row("time", _bar(seen.seconds, wanted_s), f"{seen.seconds:.0f} of {wanted_s:.0f} s")
    trials = f"{seen.count.n} of at least {config.fewest_trials}"
    table.add_row("trials", _bar(seen.count.n, config.fewest_trials), trials)
    table.add_row("directions", _rose(seen.count), _balance(seen.count))
    table.add_row("learning curve", _spark(seen.points), _latest(seen.points))
    table.add_row("", _advice(seen), "")
    table.add_row("spikes", f"{seen.spikes_per_s:.0f} a second", "")
    if seen.seconds >= wanted_s and seen.count.n >= config.fewest_trials and not seen.troubles:
        table.add_row("", Text("enough: finish when it suits you", style="bold green"), "")
    parts: list[RenderableType] = [
        table,
        *(Text(f"\n{one}", style="bold yellow") for one in seen.troubles),
        *(Text(f"\n{one}", style="yellow") for one in seen.remarks),
    ]
    return Group(*parts, cues.drawn()) if cues else Group(*parts)


def line_of(seen: Seen) -> str:
    """For a log: every ten seconds."""
    said = "".join(f"; {one}" for one in (*seen.lost, seen.left_out) if one)
    if not seen.seconds:
        return f"recording{said}"
    latest = f", {_latest(seen.points)}" if seen.points else ""
    return f"{seen.seconds // 10 * 10:.0f} s{latest if seen.seconds % 10 < 1 else ''}{said}"


def _bar(done: float, wanted: float) -> ProgressBar:
    return ProgressBar(total=wanted, completed=min(done, wanted), width=WIDTH - 4)


def _rose(count: Count) -> Text:
    most = max(*count.sectors, 1)
    text = Text()
    for name, n in zip(NAMES, count.sectors, strict=True):
        text.append(f"{name:>2}", style="dim")
        text.append(f"{BLOCKS[round(n / most * 8)]} ", style="cyan" if n else "dim")
    return text


def _balance(count: Count) -> str:
    if count.n_directed < 4:
        return ""
    n_met = sum(1 for n in count.sectors if n)
    return f"{n_met} of 8 met, balance {count.balance:.2f}"


def _spark(points: list[Point]) -> Text:
    shown = points[-WIDTH + 4 :]
    levels = [round(min(max(point.r2, 0.0), 1.0) * 8) for point in shown]
    return Text("".join(BLOCKS[level] for level in levels), style="green")


def _latest(points: list[Point]) -> str:
    return f"R2 {points[-1].r2:.2f} by a quick filter" if points else ""


def _advice(seen: Seen) -> Text:
    if seen.helps is None:
        return Text("too early to say whether more data help", style="dim")
    if seen.helps:
        return Text("more data still help", style="yellow")
    return Text("more data no longer help", style="green")
