"""Whether a minute is enough for any half of a recording's units, for docs/calibration.md.

    python docs/calibration/halves.py m1 s1 --work runs/halves

splits the units of M1 or S1 at random in three ways. From either half of each a decoder is trained,
as curves.py trains it, and adapted to the other half: six groups of neurons that it has never seen.
Writes `halves.jsonl` and prints a table; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from curves import (
    DATA,
    LENGTHS_S,
    RECORDINGS,
    SEED_SHIFT_S,
    SEEDS,
    base_config,
    half_config,
    split_units,
    trained,
)

from calibration.adaptation.adapt import adapt
from calibration.evaluate import evaluate

SPLITS = range(3)
MINUTE_S, ALL_S = 60.0, LENGTHS_S[-1]
RECIPES: dict[str, tuple[int, str, int]] = {"m1": (0, "", 0), "s1": (64, "m1", 3200)}
"""Made-up sessions, recording beside, and steps of the decoders that are to be adapted."""
OUTPUT = "velocity"


def measured(name: str, split: int, learnt: str, work: Path) -> dict[str, Any]:
    """R2 per dimension on one group of units, of a decoder that learnt from the other.

    Args:
        name: of the recording.
        split: seed of how its units are split.
        learnt: the half, `a` or `b`, that the decoder learns from.
        work: folder of the split.
    """
    halves = dict(zip("ab", split_units(DATA / RECORDINGS[name], work / name, split), strict=True))
    new = "ab".replace(learnt, "")
    config = base_config(name, learnt, halves[learnt], work, *RECIPES[name])
    base = trained(config, work / config.stem)
    full = trained(half_config(name, new, halves[new], work), work / f"{name}-{new}")
    minutes = [adapted(base, halves[new], MINUTE_S, seed, work) for seed in SEEDS]
    everything = adapted(base, halves[new], ALL_S, 0, work)
    return {
        "recording": name,
        "split": split,
        "new": new,
        "minute": [held["r2"] for held in minutes],
        "all": everything["r2"],
        "wiener_all": everything["wiener_r2"],
        "in_full": evaluate(full, [halves[new]])["outputs"][OUTPUT]["r2"],
    }


def adapted(base: Path, session: Path, seconds: float, seed: int, work: Path) -> dict[str, Any]:
    """What `adapt` says of the output, learnt from the seconds that this seed begins at."""
    out = work / f"adapted-{base.name}"
    shutil.rmtree(out, ignore_errors=True)
    start_s = seed * SEED_SHIFT_S if seconds < ALL_S else None
    told = adapt(base, session, out=out, seconds=seconds, start_s=start_s, seed=seed)
    found: dict[str, Any] = told["outputs"][OUTPUT]
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each group, x / y; then the means, and in how many dimensions it is above."""
    lines = ["| recording | split | group | 60 s | all | Wiener on all | in full |", "|-" * 7 + "|"]
    for row in rows:
        cells = [row["recording"], str(row["split"]), row["new"], *map(pair, columns_of(row))]
        lines.append(f"| {' | '.join(cells)} |")
    for name in dict.fromkeys(row["recording"] for row in rows):
        held = np.array([columns_of(row) for row in rows if row["recording"] == name])
        minute, everything, wiener, full = np.moveaxis(held, 1, 0)
        asked = full > wiener
        above = f"{int((minute > wiener)[asked].sum())} of {int(asked.sum())}"
        means = " | ".join(pair(column) for column in held.mean(axis=0))
        lines.append(f"| {name} | mean | above in {above} | {means} |")
        lines.append(f"| {name} | of all | | {pair((minute / everything).mean(axis=0))} | | | |")
    return "\n".join(lines)


def columns_of(row: dict[str, Any]) -> list[list[float]]:
    """(4, dims): a minute, everything, the Wiener filter on everything, trained in full."""
    minute = np.mean(row["minute"], axis=0).tolist()
    return [minute, row["all"], row["wiener_all"], row["in_full"]]


def pair(values: Any) -> str:
    """`.531 / .630`."""
    return " / ".join(f"{value:.3f}" for value in values)


def groups(names: list[str]) -> Iterator[tuple[str, int, str]]:
    """Recording, split, and the half that is learnt from."""
    return ((name, split, half) for name in names for split in SPLITS for half in "ab")


def main() -> None:
    """Measure what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", choices=list(RECIPES))
    parser.add_argument("--work", type=Path, default=Path("runs/halves"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    log = asked.work / "halves.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["recording"], row["split"], row["new"]) for row in rows}
    for name, split, learnt in groups(asked.recordings):
        if (name, split, "ab".replace(learnt, "")) in done:
            continue
        work = asked.work / f"{name}-{split}"
        work.mkdir(exist_ok=True)
        rows.append(measured(name, split, learnt, work))
        log.open("a").write(json.dumps(rows[-1]) + "\n")
        sys.stderr.write(f"{name} split {split}, learnt from {learnt}\n")
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
