"""The runs behind docs/accuracy.md, and its table.

    python docs/accuracy/measure.py m1 s1 open-field-1@20 --seeds 3 --work runs/accuracy
    python docs/accuracy/measure.py m1 --baselines --work runs/accuracy

A name is that of a config beside this file; `@20` sets hop = bin = 20 ms, a `c` behind it leaves
out the time inside the bin (counts). What is there is not made again; `log.jsonl` has a line a run.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from calibration.baselines import evaluate_baselines
from calibration.evaluate import evaluate
from decoders.train import train
from export.graphs.runs import export_trained

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"


def configured(name: str, seed: int, work: Path) -> Path:
    """The config of a name, with its seed, hop and place."""
    stem, _, beat = name.partition("@")
    text = (HERE / f"{stem}.toml").read_text().replace("../../../shared/data", str(DATA))
    text = re.sub(r"^seed = .*$", f"seed = {seed}", text, flags=re.M)
    if beat:
        hop = beat.rstrip("c")
        text = re.sub(r"^(hop_ms|bin_ms) = .*$", rf"\1 = {hop}", text, flags=re.M)
        if beat.endswith("c"):
            text = re.sub(r"^rotary = .*$", "rotary = false", text, flags=re.M)
    path = work / f"{name}-{seed}.toml"
    path.write_text(text)
    return path


def recording_of(config: Path) -> Path:
    """The one recording that a config names."""
    found = re.search(r'glob = \["(.*)"\]', config.read_text())
    if found is None:
        raise SystemExit(f"{config} names no recording")
    return Path(found.group(1))


def run(name: str, seed: int, work: Path) -> dict[str, Any]:
    """Train, export, and score through the exported graph."""
    config = configured(name, seed, work)
    folder = work / f"{name}-{seed}"
    bundle = work / f"{name}-{seed}-bundle"
    if not bundle.exists():
        train(config, out=folder)
        export_trained(folder, bundle)
    metrics = json.loads((folder / "metrics.json").read_text())
    found = evaluate(bundle, [recording_of(config)], split="last:0.2")
    return {
        "name": name,
        "seed": seed,
        "outputs": found["outputs"],
        "decode_ms": next(iter(found["sessions"].values()))["decode_ms"],
        "train_s": metrics["train_s"],
        "n_parameters": metrics["n_parameters"],
        "epochs": metrics.get("epochs"),
    }


def baselines(name: str, work: Path) -> dict[str, Any]:
    """Wiener filter, Kalman filter and GRU on bins, on the same split."""
    config = configured(name, 0, work)
    (found,) = evaluate_baselines(config)["sessions"].values()
    return {"name": name, "baselines": found}


def rows(log: list[dict[str, Any]]) -> list[str]:
    """Mean over seeds, with the standard deviation between them."""
    held: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in log:
        for output in one.get("outputs", ()):
            held[one["name"], output].append(one)
    lines = []
    for (name, output), runs in held.items():
        r2 = np.array([one["outputs"][output]["r2"] for one in runs])
        means = " / ".join(f"{value:.3f}" for value in r2.mean(axis=0))
        taken = f"{np.median([one['decode_ms']['p50'] for one in runs]):.2f}"
        train_s = f"{np.median([one['train_s'] for one in runs]):.0f}"
        lines.append(
            f"| {name} | {output} | {means} | ±{r2.std(axis=0).max():.3f} | {len(runs)} "
            f"| {train_s} s | {taken} ms | {runs[0]['n_parameters'] / 1e6:.2f}M |"
        )
    for one in log:
        for kind, result in one.get("baselines", {}).items():
            for output, score in result["outputs"].items():
                means = " / ".join(f"{value:.3f}" for value in score["r2"])
                lines.append(
                    f"| {one['name']} | {output} | {kind}: {means} | {result['fit_s']} s |"
                )
    return lines


def main() -> None:
    """Make the runs that are asked for and not there yet; print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    path = asked.work / "log.jsonl"
    log = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(one["name"], one.get("seed")) for one in log}
    seeds = [None] if asked.baselines else range(asked.seeds)
    for name, seed in [(name, seed) for seed in seeds for name in asked.names]:
        if (name, seed) in done:
            continue
        log.append(baselines(name, asked.work) if seed is None else run(name, seed, asked.work))
        with path.open("a") as file:
            file.write(json.dumps(log[-1]) + "\n")
    sys.stdout.write("\n".join(rows(log)) + "\n")


if __name__ == "__main__":
    main()
