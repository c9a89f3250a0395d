"""One trial of the search: train a size, export it, and run it by all that can."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.tuning.runners import Ran, judge
from decoders.config import load_config
from decoders.train import train
from decoders.training.reading import session_paths
from export.graphs.runs import export_trained

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trained:
    """A size, trained.

    Attributes:
        r2: the mean over outputs of the held-out part, in fp32.
        bundle: folder of its bundle.
        ran: by each runner.
    """

    r2: float
    bundle: Path
    ran: Sequence[Ran]


def run_trial(fields: Mapping[str, Any], folder: Path, runners: Sequence[str]) -> Trained:
    """Train as `fields` say, in this process, export the result, and judge and time its runners.

    Args:
        fields: a training config; its globs are absolute.
        folder: of this trial; must not exist.
        runners: `NAME` or `NAME:PRECISION` of backends.
    """
    folder.mkdir(parents=True)
    path = folder / "config.toml"
    path.write_text(written(fields))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.redirect_stderr(io.StringIO()):
        run = train(path, out=folder / "run")
    r2 = json.loads((run / "metrics.json").read_text())["test"]
    bundle = export_trained(run, folder / "bundle")
    recordings = session_paths(load_config(path), folder, run)
    ran = judge(bundle, runners, recordings)
    return Trained(float(np.mean(list(r2.values()))), bundle.path, ran)


def with_choice(fields: Mapping[str, Any], choice: Mapping[str, Any]) -> Fields:
    """Return the config with other values, given by `SECTION.KEY`."""
    changed = copy.deepcopy(dict(fields))
    for name, value in choice.items():
        section, _, key = name.partition(".")
        changed.setdefault(section, {})[key] = value
    return changed


def written(fields: Mapping[str, Any], path: str = "") -> str:
    """Write a config as TOML; JSON writes the same scalars and lists."""
    plain, tables = [], []
    for key, value in fields.items():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            tables.append(f"\n[{here}]\n{written(value, here)}")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            tables += [f"\n[[{here}]]\n{written(one, here)}" for one in value]
        else:
            plain.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join((*plain, *tables))
