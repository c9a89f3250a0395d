"""Accuracy against labelled seconds, for docs/calibration.md.

    python docs/calibration/curves.py simulated m1 s1 --work runs/curves

trains the decoders that are to be adapted, adapts them with `spikeloop adapt`'s own function over
lengths and seeds, and writes `curves.jsonl`, a table and `curves.png`. What is there is not made
again. M1 and S1 have their units split at random into two halves: a decoder learns from one half
and is adapted to the other, which to it are neurons never seen. With `--made-up 32` it also learns
from that many sessions of made-up neurons (for four times the steps, or `--steps`), and with
`--beside m1` from another recording, its units in three sessions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from calibration.adaptation.adapt import adapt
from calibration.errors import CalibrationError
from calibration.evaluate import evaluate
from decoders.train import train
from export.graphs.streaming import export_run
from streams.messages import SpikeBatch
from streams.sessions.nwb.writer import write_session
from streams.sessions.reading import read_session
from streams.sessions.session import Session
from streams.simulation.openloop import record_open_loop

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
RECORDINGS = {"m1": "m1_center_out.nwb", "s1": "s1_random_target.nwb"}
LENGTHS_S = (10.0, 20.0, 60.0, 180.0, 1e4)
SEEDS = range(5)
SEED_SHIFT_S = 45.0
NEW_DAYS = (16, 17, 18, 19)
NEW_DAY_MINUTES = 10.0
SUBJECT, N_UNITS = 3, 96


@dataclass(frozen=True)
class Case:
    """A decoder, and a session of neurons or of a day that it has not met."""

    name: str
    bundle: Path
    session: Path
    same_array: bool


def cases(name: str, work: Path, made_up: int, beside: str, steps: int) -> Iterator[Case]:
    """Make what is to be measured."""
    if name == "simulated":
        bundle = trained(HERE.parent / "accuracy" / "simulated.toml", work / name)
        for day in NEW_DAYS:
            path = work / f"day-{day}.nwb"
            if not path.exists():
                write_session(
                    record_open_loop(SUBJECT, day, NEW_DAY_MINUTES, N_UNITS, "random"), path
                )
            yield Case(name, bundle, path, same_array=True)
        return
    halves = split_units(DATA / RECORDINGS[name], work / name)
    config = base_config(name, "a", halves[0], work, made_up, beside, steps)
    told = name + (f" and {beside}" if beside else "") + (f", {made_up} made up" if made_up else "")
    yield Case(told, trained(config, work / config.stem), halves[1], same_array=False)


def base_config(
    name: str, half: str, session: Path, work: Path, made_up: int, beside: str, steps: int
) -> Path:
    """The config of a decoder that learns from one half, and from what else it may."""
    config = half_config(name, half, session, work)
    if beside:
        config = with_sessions(config, beside, thirds(beside, work))
    return with_made_up(config, made_up, steps) if made_up else config


def trained(config: Path, run: Path) -> Path:
    """The bundle of a config's run."""
    bundle = run.with_name(f"{run.name}-bundle")
    if not bundle.exists():
        export_run(train(config, out=run), bundle)
    return bundle


def half_config(name: str, half: str, session: Path, work: Path) -> Path:
    """The config of docs/accuracy for one half of the units."""
    text = (HERE.parent / "accuracy" / f"{name}.toml").read_text()
    named = tomllib.loads(text)["sessions"]["glob"][0]
    path = work / f"{name}-{half}.toml"
    path.write_text(text.replace(named, session.name))
    return path


def with_sessions(config: Path, name: str, sessions: list[Path]) -> Path:
    """The config with further sessions, which come before its own in the order of ids."""
    more = "".join(f'"{session.name}", ' for session in sessions)
    path = config.with_name(f"{config.stem}-{name}.toml")
    path.write_text(config.read_text().replace("glob = [", f"glob = [{more}"))
    return path


def thirds(name: str, work: Path) -> list[Path]:
    """A recording's units in three sessions, its behaviour in centimetres."""
    session = in_centimetres(read_session(DATA / RECORDINGS[name]))
    order = np.random.default_rng(0).permutation(len(session.unit_keys))
    paths = [work / f"{name}-third-{i}.nwb" for i in range(3)]
    for i, (path, chosen) in enumerate(zip(paths, np.array_split(order, 3), strict=True)):
        if not path.exists():
            write_session(of_units(session, np.sort(chosen), f"third-{i}"), path)
    return paths


def in_centimetres(session: Session) -> Session:
    """The session with lengths and speeds in those."""
    behavior = {
        name: replace(held, values=held.values * 100.0, unit=f"c{held.unit}")
        if held.unit in ("m", "m/s")
        else held
        for name, held in session.behavior.items()
    }
    return replace(session, behavior=behavior)


def with_made_up(config: Path, n: int, steps: int) -> Path:
    """The config with sessions of made-up neurons, and the time to learn from them."""
    recipe = tomllib.loads(config.read_text())["training"]
    recipe |= {"made_up": n, "newcomers": 0.5, "unit_dropout": 0.5}
    recipe["steps"] = steps or 4 * recipe["steps"]
    before = config.read_text().partition("[training]")[0]
    path = config.with_name(f"{config.stem}-made-up-{n}.toml")
    path.write_text(before + "[training]\n" + "".join(f"{k} = {v}\n" for k, v in recipe.items()))
    return path


def split_units(recording: Path, stem: Path, seed: int = 0) -> list[Path]:
    """Two sessions with half of the units each, drawn at random."""
    session = read_session(recording)
    order = np.random.default_rng(seed).permutation(len(session.unit_keys))
    halves = []
    for half, chosen in zip("ab", np.array_split(order, 2), strict=True):
        path = stem.with_name(f"{stem.name}-{half}.nwb")
        if not path.exists():
            write_session(of_units(session, np.sort(chosen), half), path)
        halves.append(path)
    return halves


def of_units(session: Session, chosen: np.ndarray, half: str) -> Session:
    """The session with these units alone."""
    row = np.full(len(session.unit_keys), -1, np.int32)
    row[chosen] = np.arange(len(chosen))
    unit = row[session.spikes.unit]
    kept = unit >= 0
    spikes = SpikeBatch(session.spikes.t_us[kept], unit[kept], session.spikes.count[kept])
    keys = tuple(session.unit_keys[i] for i in chosen)
    return replace(session, id=f"{session.id}-{half}", unit_keys=keys, spikes=spikes)


def measure(case: Case, work: Path) -> Iterator[dict[str, Any]]:
    """Adapt over lengths and seeds; each seed learns from another stretch where there is room."""
    for length_s in LENGTHS_S:
        for seed in SEEDS:
            for unfreeze in (False, True):
                out = work / "adapted"
                shutil.rmtree(out, ignore_errors=True)
                start_s = seed * SEED_SHIFT_S if length_s < LENGTHS_S[-1] else None
                said = {"case": case.name, "session": case.session.name, "length_s": length_s,
                        "seed": seed, "unfreeze": unfreeze}  # fmt: skip
                try:
                    result = adapt(
                        case.bundle, case.session, out=out, seconds=length_s, start_s=start_s,
                        same_array=case.same_array, unfreeze=unfreeze, seed=seed,
                    )  # fmt: skip
                except CalibrationError as error:
                    yield said | {"refused": str(error)}
                    continue
                yield said | {name: result[name] for name in ("adapt_s", "seconds", "start",
                                                              "n_steps", "filter_share",
                                                              "outputs")}  # fmt: skip


def in_full(name: str, work: Path) -> dict[str, Any]:
    """What the same network reaches, trained on all of the new neurons' train part."""
    halves = split_units(DATA / RECORDINGS[name], work / name)
    bundle = trained(half_config(name, "b", halves[1], work), work / f"{name}-b")
    outputs = evaluate(bundle, [halves[1]])["outputs"]
    return {"case": name, "in_full": {out: held["r2"] for out, held in outputs.items()}}


def table(rows: list[dict[str, Any]], output: str) -> str:
    """Mean over sessions and seeds, x / y, per case and length."""
    held = defaultdict(list)
    for row in rows:
        if "outputs" in row:
            held[row["case"], row["length_s"], row["unfreeze"]].append(row)
    lines = ["| | labelled | none | adapted | all learnt | Wiener | shuffled | `adapt_s` |"]
    for case, length_s, _ in sorted(key for key in held if not key[2]):
        kept, more = held[case, length_s, False], held[case, length_s, True]
        cells = [mean_of(kept, output, name) for name in ("r2_before", "r2")]
        cells += [mean_of(more, output, "r2")]
        cells += [mean_of(kept, output, name) for name in ("wiener_r2", "shuffled_r2")]
        taken = f"{np.mean([row['adapt_s'] for row in kept]):.1f}"
        lines.append(" | ".join([f"| {case}", label(length_s), *cells, taken]) + " |")
    return "\n".join(lines)


def label(length_s: float) -> str:
    """As the table names it."""
    return "all" if length_s == LENGTHS_S[-1] else f"{length_s:g} s"


def mean_of(rows: list[dict[str, Any]], output: str, name: str) -> str:
    """`.53 / .63 +-.02`: mean, and standard deviation of the mean over dimensions."""
    values = np.array([row["outputs"][output][name] for row in rows])
    if not len(values):
        return ""
    means = " / ".join(f"{value:.2f}" for value in values.mean(axis=0))
    return f"{means} ±{values.mean(axis=1).std():.2f}"


def draw(rows: list[dict[str, Any]], output: str, path: Path) -> None:
    """R2 against labelled seconds, one panel per case."""
    names = sorted({row["case"] for row in rows if "outputs" in row})
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.4), sharey=True)
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        for unfreeze, field, text in ((False, "r2", "adapted"), (True, "r2", "all learnt"),
                                      (False, "wiener_r2", "Wiener"),
                                      (False, "r2_before", "none")):  # fmt: skip
            curve(axis, [row for row in rows if row["case"] == name and "outputs" in row
                         and row["unfreeze"] == unfreeze], output, field, text)  # fmt: skip
        axis.set(title=name, xscale="log", xlabel="labelled seconds", ylim=(-0.1, 1.0))
    np.atleast_1d(axes)[0].set_ylabel(f"R2 of {output}, held-out end")
    np.atleast_1d(axes)[-1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def curve(axis: Any, rows: list[dict[str, Any]], output: str, field: str, text: str) -> None:
    """Mean over seeds, sessions and dimensions, with its spread."""
    held = defaultdict(list)
    for row in rows:
        held[row["length_s"]].append((row["seconds"], np.mean(row["outputs"][output][field])))
    points = [np.array(held[length]) for length in sorted(held)]
    x, y = ([float(p[:, i].mean()) for p in points] for i in (0, 1))
    axis.errorbar(x, y, [float(p[:, 1].std()) for p in points], marker="o", ms=3, label=text)


def main() -> None:
    """Measure what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", choices=["simulated", *RECORDINGS])
    parser.add_argument("--made-up", type=int, default=0, metavar="N")
    parser.add_argument("--beside", default="", choices=list(RECORDINGS))
    parser.add_argument("--steps", type=int, default=0, help="of training with made-up neurons")
    parser.add_argument("--work", type=Path, default=Path("runs/curves"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    log = asked.work / "curves.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row.get("case"), row.get("session")) for row in rows}
    for name in asked.cases:
        for case in cases(name, asked.work, asked.made_up, asked.beside, asked.steps):
            if (case.name, case.session.name) in done:
                continue
            for row in measure(case, asked.work):
                rows.append(row)
                log.open("a").write(json.dumps(row) + "\n")
                sys.stderr.write(f"{case.session.name} {row['length_s']:g} {row['seed']}\n")
        if name in RECORDINGS and (name, None) not in done:
            log.open("a").write(json.dumps(in_full(name, asked.work)) + "\n")
    mpl.use("Agg")
    sys.stdout.write(table(rows, "velocity") + "\n\n" + table(rows, "position") + "\n")
    draw(rows, "velocity", asked.work / "curves.png")


if __name__ == "__main__":
    main()
