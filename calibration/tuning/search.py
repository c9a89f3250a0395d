"""`spikeloop tune`: search sizes for the best R2 whose step fits a latency budget.

Accuracy and time are searched together (Optuna's TPE over both), so that what comes out is a
front: for each time the most accurate decoder that was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from calibration.errors import CalibrationError
from calibration.tuning.front import draw_front
from calibration.tuning.trials import run_trial, with_choice, written
from decoders.config import EXAMPLE, load_config, parse_config
from decoders.errors import ConfigError, DecodersError
from export.errors import ExportError
from streams.config_file import read_toml

SIZES: dict[str, Sequence[int]] = {
    "network.n_latents": (2, 4, 8, 16),
    "network.d_unit": (16, 32, 64),
    "network.d_model": (32, 64, 128, 192),
    "network.d_memory": (64, 128, 256, 384),
}
SHARE_OF_STEPS = 4
"""A trial trains so many times shorter than the config says: sizes are told apart long before."""
Say = Callable[[str], None]
Result = Future[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The search: its space and its limits.

    Attributes:
        budget_ms: longest median step, after a wait, on this machine.
        trials: how many sizes are tried, the config's own included.
        steps: of each trial's training; None for a quarter of the config's.
        hops_ms: hops to try; () for the config's own.
        backend: that runs the steps.
        workers: trials that run side by side.
        seed: of the search.
    """

    budget_ms: float
    trials: int = 12
    steps: int | None = None
    hops_ms: tuple[float, ...] = ()
    backend: str = "onnxruntime-cpu"
    workers: int = 1
    seed: int = 0


@dataclass(slots=True)
class Tried:
    """A trial's choice and what came of it; `why` says what went wrong, "" for nothing."""

    choice: dict[str, Any]
    r2: float = float("nan")
    step_ms: float = float("nan")
    why: str = ""
    is_default: bool = False


def tune(config_path: Path, out: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """Search, draw the front, and write the config of the best that fits.

    Args:
        config_path: a training config, whose sizes are the default that is to be beaten.
        out: new folder for trials, `front.png`, `trials.json` and `tuned.toml`.
        settings: of the search.
        say: told each trial as it ends.

    Returns:
        JSON-able: `chosen` and `default` (choice, `r2`, `step_ms`), `config`, and all `trials`.

    Raises:
        ConfigError: the config cannot be used, or the folder is there.
        CalibrationError: nothing that was tried fits the budget.
    """
    config = load_config(config_path)
    if config.family != "streaming":
        raise ConfigError(
            f"{config_path}: the sizes of `streaming` are searched, no other family's"
        )
    if out.exists():
        raise ConfigError(f"{out} is there already; give another folder by --out")
    fields = _absolute(read_toml(config_path, ConfigError, EXAMPLE), config_path.parent.resolve())
    default = _choice_of(config, settings)
    steps = settings.steps or max(1, config.training.steps // SHARE_OF_STEPS)
    tried = _search(with_choice(fields, {"training.steps": steps}), default, out, settings, say)
    chosen = best_within(tried, settings.budget_ms)
    front = front_of(tried)
    (out / "trials.json").write_text(json.dumps([asdict(one) for one in tried], indent=1) + "\n")
    draw_front(out / "front.png", tried, front, chosen, settings.budget_ms)
    if chosen is None:
        fastest = min((one.step_ms for one in tried if not one.why), default=float("nan"))
        raise CalibrationError(
            f"no trial fits {settings.budget_ms:g} ms; the fastest took {fastest:.3g} ms on "
            f"{settings.backend}. All are in {out}"
        )
    path = out / "tuned.toml"
    text = written(with_choice(fields, chosen.choice))
    path.write_text(f"# spikeloop train {path}\n# Sizes found by `spikeloop tune`.\n{text}")
    parse_config(read_toml(path, ConfigError, EXAMPLE), str(path))
    return {
        "config": str(path),
        "chosen": asdict(chosen),
        "default": asdict(next(one for one in tried if one.is_default)),
        "front": [asdict(one) for one in front],
        "trials": len(tried),
    }


def best_within(tried: Sequence[Tried], budget_ms: float) -> Tried | None:
    """Return the most accurate of those that fit; None if none does."""
    fitting = [one for one in tried if not one.why and one.step_ms <= budget_ms]
    return max(fitting, key=lambda one: one.r2, default=None)


def front_of(tried: Sequence[Tried]) -> list[Tried]:
    """Return those that no other beats in both accuracy and time, the fastest first."""
    front: list[Tried] = []
    for one in sorted((t for t in tried if not t.why), key=lambda t: (t.step_ms, -t.r2)):
        if not front or one.r2 > front[-1].r2:
            front.append(one)
    return front


def _choice_of(config: Any, settings: Settings) -> dict[str, Any]:
    """Return the config's own sizes."""
    default = {name: getattr(config.network, name.partition(".")[2]) for name in SIZES}
    if settings.hops_ms:
        default["beat.hop_ms"] = config.beat.hop_ms
    return default


def _absolute(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config with globs that hold in any folder."""
    sessions = dict(fields.get("sessions", {}))
    if "glob" in sessions:
        globs = sessions["glob"]
        named = [globs] if isinstance(globs, str) else globs
        sessions["glob"] = [str(folder / one) for one in named]
    return {**fields, "sessions": sessions}


def _search(
    fields: Mapping[str, Any],
    default: Mapping[str, Any],
    out: Path,
    settings: Settings,
    say: Say,
) -> list[Tried]:
    """Run the trials, each in a process of its own, the default first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=4)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.enqueue_trial(dict(default))
    tried: list[Tried] = []
    running: dict[Result, tuple[Any, Tried]] = {}

    def take_finished() -> None:
        for finished in wait(running, return_when=FIRST_COMPLETED).done:
            _note(study, *running.pop(finished), finished, say)

    # A process a trial: what torch and the backend keep must not slow the next one.
    with ProcessPoolExecutor(
        settings.workers, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as processes:
        for i in range(settings.trials):
            if len(running) == settings.workers:
                take_finished()
            trial = study.ask()
            one = Tried(_asked(trial, default, settings.hops_ms), is_default=i == 0)
            tried.append(one)
            folder = out / f"trial-{i:03d}"
            made = with_choice(fields, one.choice)
            running[processes.submit(run_trial, made, folder, settings.backend)] = (trial, one)
        while running:
            take_finished()
    return tried


def _asked(trial: Any, default: Mapping[str, Any], hops_ms: Sequence[float]) -> dict[str, Any]:
    """Let the search choose; the config's own values are always among the choices."""
    choice = {
        name: trial.suggest_categorical(name, sorted({*sizes, default[name]}))
        for name, sizes in SIZES.items()
    }
    if hops_ms:
        hops = sorted({*hops_ms, default["beat.hop_ms"]})
        hop_ms = trial.suggest_categorical("beat.hop_ms", hops)
        choice |= {"beat.hop_ms": hop_ms, "beat.bin_ms": hop_ms}
    return choice


def _note(study: Any, trial: Any, one: Tried, result: Result, say: Say) -> None:
    """Take a trial's result in; a size that cannot be trained or run is told and passed over."""
    import optuna

    sizes = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in one.choice.items())
    try:
        found = result.result()
    except (DecodersError, ExportError, RuntimeError) as err:
        one.why = str(err)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        say(f"{sizes}: {one.why}")
        return
    one.r2, one.step_ms = found["r2"], found["step_ms"]
    study.tell(trial, [one.r2, one.step_ms])
    say(f"{sizes}: R2 {one.r2:.3f}, {one.step_ms:.3f} ms{', the default' * one.is_default}")
