"""Closed form against gradient, for docs/calibration.md.

    python docs/calibration/closed_form.py simulated shipped m1 s1 --work runs/closed

adapts the decoders of curves.py and halves.py in both ways over lengths and seeds, by `spikeloop
adapt`'s own function. M1 and S1 have their units split at random: a decoder learns from one half
and is adapted to the other. `shipped` is the decoder that comes with the package, on later days
of its subject. Writes `closed_form.jsonl`, a table and `closed_form.png`; what is
there is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from curves import (
    DATA,
    RECORDINGS,
    SEED_SHIFT_S,
    SEEDS,
    Case,
    base_config,
    cases,
    split_units,
    trained,
)
from halves import OUTPUT, RECIPES

from calibration.adaptation.adapt import adapt
from export.shipped import bundle_path
from streams.sessions.nwb.writer import write_session
from streams.simulation.openloop import record_open_loop

LENGTHS_S = (10.0, 20.0, 60.0, 180.0)
WAYS = ("closed form", "gradient")
SHIPPED_DAYS, SHIPPED_MINUTES = (12, 16, 20, 25, 28), 6.0
"""It knows days 0 to 7; on day 25 the array has shifted."""


def groups(name: str, work: Path, splits: int, halves: str) -> Iterator[Case]:
    """Decoders, each with neurons or a day that it has not met."""
    if name == "simulated":
        yield from cases(name, work, 0, "", 0)
        return
    if name == "shipped":
        for day in SHIPPED_DAYS:
            path = work / f"shipped-day-{day}.nwb"
            if not path.exists():
                write_session(record_open_loop(1, day, SHIPPED_MINUTES, 96, "random"), path)
            yield Case(name, bundle_path("shipped:demo"), path, same_array=True)
        return
    for split in range(splits):
        folder = work / f"{name}-{split}"
        folder.mkdir(exist_ok=True)
        paths = split_units(DATA / RECORDINGS[name], folder / name, split)
        for learnt in halves:
            old, new = paths if learnt == "a" else paths[::-1]
            config = base_config(name, learnt, old, folder, *RECIPES[name])
            yield Case(f"{name}-{split}", trained(config, folder / config.stem), new, False)


def measured(case: Case, length_s: float, seed: int, way: str, work: Path) -> dict[str, Any]:
    """R2 per dimension on the test part."""
    out = work / f"adapted-{case.session.stem}"
    shutil.rmtree(out, ignore_errors=True)
    told = adapt(
        case.bundle, case.session, out=out, seconds=length_s, start_s=seed * SEED_SHIFT_S,
        same_array=case.same_array, gradient=way == "gradient", seed=seed,
    )  # fmt: skip
    found = told["outputs"][OUTPUT]
    kept = {name: told[name] for name in ("adapt_s", "start", "n_steps", "filter_share")}
    return kept | {name: found[name] for name in ("r2", "r2_before", "wiener_r2")}


def mean_of(rows: list[dict[str, Any]], length_s: float, way: str, name: str = "r2") -> np.ndarray:
    """(n_groups, dims), the mean over seeds."""
    chosen = [row for row in rows if (row["length_s"], row["way"]) == (length_s, way)]
    groups = dict.fromkeys(row["group"] for row in chosen)
    means = [np.mean([r[name] for r in chosen if r["group"] == g], axis=0) for g in groups]
    return np.array(means)


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each recording and length: both ways, and their ratio."""
    head = ["", "labelled", "gradient", "closed form", "of gradient", "Wiener"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(row["recording"] for row in rows):
        own = [row for row in rows if row["recording"] == name]
        for length_s in sorted({row["length_s"] for row in own}):
            closed, stepped = (mean_of(own, length_s, way) for way in WAYS)
            if len(closed) != len(stepped):
                continue
            share = closed.mean(axis=0) / stepped.mean(axis=0)
            wiener = mean_of(own, length_s, "gradient", "wiener_r2")
            told = " / ".join(f"{100 * s:.1f} %" for s in share)
            means = [pair(held.mean(axis=0)) for held in (stepped, closed, wiener)]
            cells = [name, f"{length_s:g} s", *means[:2], told, means[2]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pair(values: np.ndarray) -> str:
    """`.531 / .630`."""
    return " / ".join(f"{value:.3f}".replace("0.", ".", 1) for value in values)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """R2 against labelled seconds, a panel for each recording."""
    names = list(dict.fromkeys(row["recording"] for row in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.4), sharey=True)
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        own = [row for row in rows if row["recording"] == name]
        lengths_s = sorted({row["length_s"] for row in own})
        for way, style in zip(WAYS, ("o-", "s--"), strict=True):
            held = [mean_of(own, length_s, way).mean() for length_s in lengths_s]
            axis.plot(lengths_s, held, style, ms=4, label=way)
        wiener = [mean_of(own, s, "gradient", "wiener_r2").mean() for s in lengths_s]
        axis.plot(lengths_s, wiener, ":", color="grey", label="Wiener filter")
        axis.set(title=name, xscale="log", xlabel="labelled seconds", ylim=(0.0, 1.0))
        axis.set_xticks(lengths_s, [f"{length_s:g}" for length_s in lengths_s])
        axis.minorticks_off()
    np.atleast_1d(axes)[0].set_ylabel(f"R2 of {OUTPUT}, mean over x and y")
    np.atleast_1d(axes)[-1].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", choices=["simulated", "shipped", *RECIPES])
    parser.add_argument("--splits", type=int, default=3, help="ways of splitting the units")
    parser.add_argument("--halves", default="ab", help="halves that are learnt from")
    parser.add_argument("--lengths", type=float, nargs="+", default=LENGTHS_S, metavar="S")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="stretches to learn from")
    parser.add_argument("--work", type=Path, default=Path("runs/closed"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    log = asked.work / "closed_form.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {tuple(row[k] for k in ("group", "length_s", "seed", "way")) for row in rows}
    for name in asked.recordings:
        for case in groups(name, asked.work, asked.splits, asked.halves):
            group = f"{case.name} {case.session.stem}"
            for length_s in asked.lengths:
                for seed, way in itertools.product(range(asked.seeds), WAYS):
                    if (group, length_s, seed, way) in done:
                        continue
                    told = measured(case, length_s, seed, way, asked.work)
                    said = {"recording": name, "group": group, "length_s": length_s, "seed": seed}
                    rows.append(said | {"way": way} | told)
                    log.open("a").write(json.dumps(rows[-1]) + "\n")
                    sys.stderr.write(f"{group} {length_s:g} {seed} {way}\n")
    mpl.use("Agg")
    sys.stdout.write(table(rows) + "\n")
    draw(rows, asked.work / "closed_form.png")


if __name__ == "__main__":
    main()
