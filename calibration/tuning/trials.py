"""One trial of the search: train a size, export it, time a step."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from decoders.train import train
from export.backends.opening import open_backend
from export.choice.paced import time_in_turn
from export.graphs.runs import export_trained

Fields = dict[str, Any]


def run_trial(fields: Mapping[str, Any], folder: Path, backend: str) -> dict[str, float]:
    """Train as `fields` say, in this process, and export and time the result.

    Args:
        fields: a training config; its globs are absolute.
        folder: of this trial; must not exist.
        backend: that runs the steps.

    Returns:
        `r2`, the mean over outputs of the held-out part, and `step_ms`, the median after a wait.
    """
    folder.mkdir(parents=True)
    config = folder / "config.toml"
    config.write_text(written(fields))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.redirect_stderr(io.StringIO()):
        run = train(config, out=folder / "run")
    r2 = json.loads((run / "metrics.json").read_text())["test"]
    bundle = export_trained(run, folder / "bundle")
    opened = open_backend(bundle, backend)
    step_s = time_in_turn(bundle, {backend: opened.backend})[backend]
    return {"r2": float(np.mean(list(r2.values()))), "step_ms": step_s * 1e3}


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
