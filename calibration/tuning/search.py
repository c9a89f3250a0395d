"""`spikeloop tune`: search size, hop and precision for the best R2 within a latency budget.

Accuracy and time are searched together (Optuna's TPE over both), so that what comes out is a
front: for each time the most accurate decoder that was found. No size is trained twice.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from calibration.errors import CalibrationError
from calibration.tuning.draws import Choice, Draws
from calibration.tuning.front import draw_front
from calibration.tuning.runners import runners_here, time_again
from calibration.tuning.trials import Trained, run_trial, with_choice, written
from decoders.config import EXAMPLE, load_config, parse_config
from decoders.errors import ConfigError, DecodersError
from export.backends.table import parse_choice
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
Space = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The search: its space and its limits.

    Attributes:
        budget_ms: longest median step, after a wait, on this machine.
        trials: how many sizes are tried, the config's own included.
        steps: of each trial's training; None for a quarter of the config's.
        hops_ms: hops to try; () for the config's own.
        runners: backends that run each size, `NAME` or `NAME:PRECISION`; () for all that
            `backend = "auto"` considers here, and their lower precisions.
        workers: trials that run side by side.
        seed: of the search.
    """

    budget_ms: float
    trials: int = 12
    steps: int | None = None
    hops_ms: tuple[float, ...] = ()
    runners: tuple[str, ...] = ()
    workers: int = 1
    seed: int = 0


@dataclass(slots=True)
class Tried:
    """A size by one runner, and what came of it.

    Attributes:
        choice: the size, and the hop where hops are tried.
        runner: backend that ran it, `NAME` or `NAME:PRECISION`; "" where nothing was trained.
        r2: of the held-out part, less what the precision costs.
        step_ms: median step after a wait.
        why: what went wrong, or refused the precision; "" for nothing.
        is_default: the config's own size, by the fastest of those that run it in fp32.
    """

    choice: Choice
    runner: str = ""
    r2: float = float("nan")
    step_ms: float = float("nan")
    why: str = ""
    is_default: bool = False

    @property
    def precision(self) -> str:
        """Of its multiplications."""
        return self.runner.partition(":")[2] or "fp32"


def tune(config_path: Path, out: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """Search, draw the front, and write the config of the best that fits.

    Args:
        config_path: a training config, whose sizes are the default that is to be beaten.
        out: new folder for trials, `front.png`, `trials.json` and `tuned.toml`.
        settings: of the search.
        say: told each trial as it ends.

    Returns:
        JSON-able: `chosen`, `default` and each of the `front` (choice, `runner`, `r2`, `step_ms`),
        `config`, and how many `trials` there were.

    Raises:
        ConfigError: the config cannot be used, or the folder is there.
        ExportError: a runner is unknown.
        CalibrationError: nothing that was tried fits the budget.
    """
    config = load_config(config_path)
    if config.family != "streaming":
        raise ConfigError(
            f"{config_path}: the sizes of `streaming` are searched, no other family's"
        )
    if out.exists():
        raise ConfigError(f"{out} is there already; give another folder by --out")
    for runner in settings.runners:
        parse_choice(runner)
    fields = _absolute(read_toml(config_path, ConfigError, EXAMPLE), config_path.parent.resolve())
    steps = settings.steps or max(1, config.training.steps // SHARE_OF_STEPS)
    search = _Search(
        with_choice(fields, {"training.steps": steps}), _space(config, settings), out, settings, say
    )
    tried = search.run(_choice_of(config, settings))
    chosen = best_within(tried, settings.budget_ms)
    front = front_of(tried)
    (out / "trials.json").write_text(json.dumps([asdict(one) for one in tried], indent=1) + "\n")
    draw_front(out / "front.png", tried, front, chosen, settings.budget_ms)
    if chosen is None:
        sound = [one.step_ms for one in tried if not one.why]
        what = (
            f"no trial fits {settings.budget_ms:g} ms; the fastest took {min(sound):.3g} ms"
            if sound
            else f"nothing that was tried runs here: {tried[-1].why}"
        )
        raise CalibrationError(f"{what}. All are in {out}")
    path = out / "tuned.toml"
    path.write_text(
        _header(path, config.name, chosen) + written(with_choice(fields, chosen.choice))
    )
    parse_config(read_toml(path, ConfigError, EXAMPLE), str(path))
    return {
        "config": str(path),
        "chosen": asdict(chosen),
        "default": next((asdict(one) for one in tried if one.is_default), None),
        "front": [asdict(one) for one in front],
        "trials": search.n_trials,
    }


def best_within(tried: Sequence[Tried], budget_ms: float) -> Tried | None:
    """Return the most accurate of those that fit, the faster of equals; None if none does."""
    fitting = [one for one in tried if not one.why and one.step_ms <= budget_ms]
    return max(fitting, key=lambda one: (one.r2, -one.step_ms), default=None)


def front_of(tried: Sequence[Tried]) -> list[Tried]:
    """Return those that no other beats in both accuracy and time, the fastest first."""
    front: list[Tried] = []
    for one in sorted((t for t in tried if not t.why), key=lambda t: (t.step_ms, -t.r2)):
        if not front or one.r2 > front[-1].r2:
            front.append(one)
    return front


def _header(path: Path, name: str, chosen: Tried) -> str:
    """Say in the config that is written how it is trained, built and served."""
    bundle, (backend, precision) = f"bundles/{name}", parse_choice(chosen.runner)
    lines = [
        f"Found by `spikeloop tune`: R2 {chosen.r2:.3f} after its short training, "
        f"{chosen.step_ms:.3g} ms a step.",
        f"spikeloop train {path} && spikeloop export runs/{name} -o {bundle}",
    ]
    if precision != "fp32":
        build = f"spikeloop build {bundle} --backend {backend} --precision {precision}"
        lines.append(f"{build} --session RECORDING.nwb")
    lines.append(f'In serve.toml, under [decoder]: backend = "{chosen.runner}"')
    return "".join(f"# {line}\n" for line in lines) + "\n"


def _choice_of(config: Any, settings: Settings) -> Choice:
    """Return the config's own sizes."""
    default = {name: getattr(config.network, name.partition(".")[2]) for name in SIZES}
    if settings.hops_ms:
        default |= {"beat.hop_ms": config.beat.hop_ms, "beat.bin_ms": config.beat.bin_ms}
    return default


def _space(config: Any, settings: Settings) -> Space:
    """Return what is drawn from; the config's own values are always among the choices."""
    own = _choice_of(config, settings)
    space: dict[str, Sequence[Any]] = {
        name: sorted({*sizes, own[name]}) for name, sizes in SIZES.items()
    }
    if settings.hops_ms:
        space["beat.hop_ms"] = sorted({*settings.hops_ms, config.beat.hop_ms})
    return space


def _absolute(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config with globs that hold in any folder."""
    sessions = dict(fields.get("sessions", {}))
    if "glob" in sessions:
        globs = sessions["glob"]
        named = [globs] if isinstance(globs, str) else globs
        sessions["glob"] = [str(folder / one) for one in named]
    return {**fields, "sessions": sessions}


class _Search:
    """Draws sizes, trains each in a process of its own, and times what came of them.

    Args:
        fields: the config, its steps those of a trial.
        space: values of each parameter.
        out: folder of the trials.
        settings: of the search.
        say: told each trial as it ends.
    """

    def __init__(
        self, fields: Mapping[str, Any], space: Space, out: Path, settings: Settings, say: Say
    ) -> None:
        self._fields, self._space, self._out = fields, space, out
        self._settings, self._say = settings, say
        self._runners = settings.runners or runners_here()
        self._tried: list[Tried] = []
        self._bundles: list[tuple[Path, list[Tried]]] = []
        self.n_trials = 0

    def run(self, default: Choice) -> list[Tried]:
        """Try the default and then what the search draws; return each size by each runner."""
        running: dict[Future[Trained], tuple[Any, Choice]] = {}
        draws = Draws(self._space, default, self._settings.seed)
        with self._processes(self._settings.workers) as processes:
            for trial, drawn in itertools.islice(draws, self._settings.trials):
                choice = self._whole(drawn) if self.n_trials else default
                folder = self._out / f"trial-{self.n_trials:03d}"
                made = with_choice(self._fields, choice)
                future = processes.submit(run_trial, made, folder, self._runners)
                running[future] = trial, choice
                self.n_trials += 1
                if len(running) == self._settings.workers:
                    self._take_finished(draws, running)
            while running:
                self._take_finished(draws, running)
        self._time_again()
        own = [one for one in self._tried if one.choice == default and not one.why]
        own_fp32 = [one for one in own if one.precision == "fp32"]
        if own_fp32:
            min(own_fp32, key=lambda one: one.step_ms).is_default = True
        return self._tried

    @staticmethod
    def _whole(drawn: Choice) -> Choice:
        """Add what follows from a choice: bins are as long as hops."""
        hop_ms = drawn.get("beat.hop_ms")
        return drawn | ({"beat.bin_ms": hop_ms} if hop_ms else {})

    def _take_finished(
        self, draws: Draws, running: dict[Future[Trained], tuple[Any, Choice]]
    ) -> None:
        for finished in wait(running, return_when=FIRST_COMPLETED).done:
            self._take(draws, finished, *running.pop(finished))

    def _take(self, draws: Draws, finished: Future[Trained], trial: Any, choice: Choice) -> None:
        """Take a trial's result in; what cannot be trained or run is told and passed over."""
        told = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in choice.items())
        try:
            trained = finished.result()
        except (DecodersError, ExportError, RuntimeError) as err:
            draws.fail(trial)
            self._tried.append(Tried(choice, why=str(err)))
            self._say(f"{told}: {err}")
            return
        points = [
            Tried(choice, one.runner, trained.r2 - one.cost, one.step_ms, one.why)
            for one in trained.ran
        ]
        self._tried += points
        self._bundles.append((trained.bundle, points))
        sound = [one for one in points if not one.why]
        for one in (one for one in points if one.why):
            self._say(f"{told}: {one.runner} refused: {one.why}")
        if not sound:
            draws.fail(trial)
            return
        fastest = min(sound, key=lambda one: one.step_ms)
        draws.tell(trial, trained.r2, fastest.step_ms)
        steps = ", ".join(f"{one.runner} {one.step_ms:.3f} ms" for one in sound)
        self._say(f"{told}: R2 {trained.r2:.3f}; {steps}")

    def _time_again(self) -> None:
        """Time all runners once more, in turn, now that no trial trains beside them."""
        sound = [(path, [one for one in points if not one.why]) for path, points in self._bundles]
        sizes = [(path, [one.runner for one in points]) for path, points in sound]
        with self._processes(1) as processes:
            found = processes.submit(time_again, sizes).result()
        for (_, points), took_ms in zip(sound, found, strict=True):
            for one in points:
                one.step_ms = took_ms.get(one.runner, one.step_ms)

    @staticmethod
    def _processes(n: int) -> ProcessPoolExecutor:
        """Make processes of one task each: what torch and a backend keep must not slow the next."""
        return ProcessPoolExecutor(n, mp_context=get_context("spawn"), max_tasks_per_child=1)
