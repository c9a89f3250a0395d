"""`python -m benchmarks.sources`: what `cut = "auto"` does on sources that are not like ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.command import AsJson, HopMs, Option, RateHz, Units, main
from benchmarks.sources.kinds import KINDS
from benchmarks.sources.told import Told, lacking
from benchmarks.sources.watched import Watched, watch
from service.bench import machine
from service.bench.loop import Settings
from service.bench.rig import Rig
from service.bench.screen import show
from service.errors import ConfigError, ExitCode
from streams.messages import Float64s

_LEGEND = (
    "watermark: share of bins that it cut. disorder: told at most. late: spikes, auto / settled. "
    "ok: decodes of auto. lacking: spikes that decodes of auto lack which were ok and cut earlier "
    "than settled would, though they were here before the settle time was over; + until the "
    "disorder was found out. overdue: spikes that another process had a millisecond before the "
    "settle time was over, and a daemon that waited for the whole of it had not, auto / settled."
)
PHASES = ("before", "meanwhile", "after")
WIDTH = 145
Row = dict[str, Any]


def run(
    source: Annotated[list[str] | None, Option(help="One of them; may be given again.")] = None,
    units: Units = 100,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 20.0,
    seconds: Annotated[float, Option(help="Length of each turn, once settled.")] = 30.0,
    backend: Annotated[str, Option(help="Runs the network.")] = "auto",
    priority: Annotated[int, Option(help="SCHED_FIFO priority of the beat; 0 for none.")] = 50,
    together: Annotated[
        bool, Option("--together", help="All at once: quicker, and later by what they share.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Decode sources of every kind, cut by `auto` and by `settled` side by side.

    Ends with code 8 if a decode by `auto` was `ok` without spikes that the settle time would have
    had, but for the moment at which a source turns disorderly.
    """
    settings = Settings(
        n_units=units, rate_hz=rate, hop_s=hop_ms * 1e-3, seconds=seconds, block_s=5e-3,
        backend=backend, priority=priority,
    )  # fmt: skip
    return bench_sources(source or list(KINDS), settings, together=together, as_json=json)


def bench_sources(
    names: list[str], settings: Settings, *, together: bool, as_json: bool
) -> ExitCode:
    """Watch the sources of these names, and print a row for each phase.

    Raises:
        ConfigError: there is no such source.
        ProcessFailedError: a process ended before its time.
    """
    if unknown := [name for name in names if name not in KINDS]:
        raise ConfigError(f"no source {unknown[0]!r}; there are: {', '.join(KINDS)}")
    before, rows = machine.processor_ticks(), list[Row]()
    for group in [names] if together else [[name] for name in names]:
        with Rig() as rig, ExitStack() as stack:
            watched = [stack.enter_context(Watched(rig, name, settings)) for name in group]
            watch(watched, settings.seconds)
            for one in watched:
                rows += rows_of(one.name, one.t_s, one.told, one.spikes, settings.hop_s)
    if as_json:
        found = {"sources": rows, "settings": settings.as_dict()}
        show("", found | {"machine": machine.describe(before)}, as_json=True)
    else:
        print_rows(rows)
    return ExitCode.BELOW_THRESHOLD if any(row["lacking"] for row in rows) else ExitCode.DONE


def rows_of(
    name: str,
    t_s: Sequence[float],
    told: Mapping[str, Told],
    spikes: Sequence[tuple[Float64s, float]],
    bin_s: float,
) -> list[Row]:
    """Return what each daemon did, a row a phase; one row for a source that does not change.

    Args:
        name: of the source's kind.
        t_s: when its phases began, and the last ended.
        told: by each daemon, by its cut.
        spikes: per pull their (n,) stamps, and when they were here.
        bin_s: length of a bin.
    """
    kind, bounds = KINDS[name], list(zip(PHASES, t_s[:-1], t_s[1:], strict=True))
    if not kind.changes:
        bounds = [("", t_s[0], t_s[-1])]
    stamps = np.concatenate([of_pull for of_pull, _ in spikes])
    here_s = np.repeat([t_here for _, t_here in spikes], [len(of_pull) for of_pull, _ in spikes])
    order = np.argsort(stamps, kind="stable")
    rows = []
    for phase, from_s, until_s in bounds:
        parts = {cut: whole.between(from_s, until_s) for cut, whole in told.items()}
        auto = parts["auto"]
        lacked, waited = dict[str, dict[float, int]](), auto.waited
        for cut, part in parts.items():
            found = lacking(told[cut], part.decodes, stamps[order], here_s[order], bin_s)
            lacked[cut] = dict(found)
        early = {t_s: n for t_s, n in lacked["auto"].items() if t_s not in waited}
        t_found_s = _found_out(auto) if kind.behind_s and phase == "meanwhile" else -np.inf
        rows.append({
            "source": name,
            "phase": phase,
            "decodes": len(auto.decodes),
            "cut_shares": auto.cut_shares(),
            "disorder_ms": auto.disorder_ms(),
            "events": [event["event"] for event in auto.events],
            "ok": auto.ok_share(),
            "reasons": sorted({one["reason"] for one in auto.decodes} - {""}),
            "lacking": sum(n for t_s, n in early.items() if t_s > t_found_s),
            "lacking_until_found": sum(n for t_s, n in early.items() if t_s <= t_found_s),
            "overdue": {
                "auto": sum(lacked["auto"].values()) - sum(early.values()),
                "settled": sum(lacked["settled"].values()),
            },
            "settle_ms": 1e3 * auto.settle_s_at(until_s),
            "sent_ms": {cut: _percentiles(part) for cut, part in parts.items()},
            "late": {cut: part.n_late() for cut, part in parts.items()},
            "ok_settled": parts["settled"].ok_share(),
        })  # fmt: skip
    return rows


def print_rows(rows: list[Row]) -> None:
    """Print them as a table."""
    table = Table(
        title='cut = "auto" beside "settled", ms; sent after the window\'s end: p50 / p99',
        title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0),
    )  # fmt: skip
    numbers = ("watermark", "disorder", "settle", "auto sent", "settled sent", "late", "ok",
               "lacking", "overdue")  # fmt: skip
    for column in ("source", "phase", *numbers, "events"):
        align: Literal["left", "right"] = "right" if column in numbers else "left"
        table.add_column(column, justify=align, no_wrap=column != "events")
    for row in rows:
        sent, late, until = row["sent_ms"], row["late"], row["lacking_until_found"]
        overdue = row["overdue"]
        table.add_row(
            KINDS[row["source"]].told,
            row["phase"],
            f"{row['cut_shares'].get('watermark', 0.0):.0%}",
            f"{row['disorder_ms']:.1f}",
            f"{row['settle_ms']:.1f}",
            *(f"{sent[cut][0]:.1f} / {sent[cut][1]:.1f}" for cut in ("auto", "settled")),
            f"{late['auto']} / {late['settled']}",
            f"{row['ok']:.0%}",
            f"{row['lacking']}" + (f" + {until}" if until else ""),
            f"{overdue['auto']} / {overdue['settled']}",
            ", ".join(row["events"]),
        )
    console = Console(width=WIDTH)
    console.print(table)
    console.print(_LEGEND)


def _percentiles(told: Told) -> list[float]:
    return [float(value) for value in np.quantile(told.sent_ms(), (0.5, 0.99))]


def _found_out(told: Told) -> float:
    """Return when a source was told to be disorderly; minus infinity if it was not."""
    return next((one["t_sent"] for one in told.events if one["event"] == "disorder"), -np.inf)


if __name__ == "__main__":
    main(run)
