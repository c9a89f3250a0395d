"""Commands that make decoders and judge them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from service.cli.options import (
    Bundle,
    Command,
    Config,
    Json,
    Out,
    SessionsConfig,
    SignKey,
    arg,
    flag,
    listed,
    opt,
)

if TYPE_CHECKING:
    from rich.table import Table


Session = Annotated[Path, arg("SESSION.nwb", "The recording.")]


def train(
    config: Config,
    out: Annotated[Path | None, opt("Run directory.", "RUN")] = None,
    resume: Annotated[bool, flag("--resume", "Go on with a run.")] = False,
) -> None:
    """Train a decoder."""
    from decoders import train as training

    sys.stdout.write(f"{training.train(config, resume=resume, out=out)}\n")


def tune(
    config: Config,
    budget_ms: Annotated[float, opt("Longest median step on this machine.")] = 0.5,
    trials: Annotated[int, opt("Sizes to try, the config's own included.")] = 12,
    steps: Annotated[int | None, opt("Of each trial; else a quarter of the config's.")] = None,
    hops_ms: Annotated[str, opt("Hops to try, too; else the config's alone.", "MS,MS")] = "",
    backends: Annotated[
        str,
        opt(
            'What runs each size; else all that backend = "auto" considers here, and their lower '
            "precisions.",
            "NAME[:PRECISION],...",
        ),
    ] = "",
    workers: Annotated[int, opt("Trials side by side.")] = 1,
    seed: Annotated[int, opt("Seed of the search.")] = 0,
    out: Annotated[Path, opt("New folder for trials, figure and config.")] = Path("runs/tune"),
) -> None:
    """Search size, hop and precision for a latency budget.

    Each size is trained once, and run by every backend and precision. Writes `tuned.toml`, the
    config of the most accurate whose step fits the budget, with the backend to serve it by, and
    `front.png`, accuracy against time of all that was tried.
    """
    from calibration.tuning.search import Settings
    from calibration.tuning.search import tune as search
    from streams.long_work import LongWork

    settings = Settings(
        budget_ms=budget_ms,
        trials=trials,
        steps=steps,
        hops_ms=tuple(map(float, listed(hops_ms))),
        runners=tuple(listed(backends)),
        workers=workers,
        seed=seed,
    )
    with LongWork("searching") as work:

        def say(line: str) -> None:
            work.tell(f"last {line}")
            _say(line)

        told = search(config, out, settings, say)
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def export(
    source: Annotated[Path, arg("RUN|FILE.ckpt", "Run, or torch_brain checkpoint.")],
    out: Out,
    session: Annotated[str | None, opt("Whose units and session vector.")] = None,
    hop_ms: Annotated[float, opt("Of a checkpoint: milliseconds between beats.")] = 100.0,
    output: Annotated[
        list[str] | None,
        opt(
            "Of a checkpoint: what the readout means, for example velocity:cm/s:20,20.",
            "NAME:UNIT:SCALE[,SCALE]",
        ),
    ] = None,
    units: Annotated[Path | None, opt("Of a checkpoint: JSON, unit key to word.")] = None,
    trust_pickle: Annotated[
        bool, flag("--trust-pickle", "Run code that a checkpoint may hold.")
    ] = False,
    sign_key: SignKey = None,
) -> None:
    """Make a bundle of a trained decoder."""
    from export.signing.signer import signer_of

    sign_it = signer_of(sign_key)
    if source.is_file():
        from export.graphs.poyo import export_poyo, parse_output

        bundle = export_poyo(
            source,
            out,
            hop_s=hop_ms * 1e-3,
            session=session,
            outputs=[parse_output(text) for text in output or ()],
            unit_words=json.loads(units.read_text()) if units else None,
            trust_pickle=trust_pickle,
        )
    else:
        from export.graphs.runs import export_trained

        bundle = export_trained(source, out, session=session)
    sign_it(out)
    sys.stdout.write(f"{bundle.path}  {bundle.manifest.name}  {bundle.manifest.id[:12]}\n")


def build(
    bundle: Bundle,
    backend: Annotated[str, opt("What will run it.")] = "tensorrt",
    precision: Annotated[Literal["fp32", "fp16", "bf16"], opt("Of the numbers.")] = "fp32",
    target: Annotated[
        str,
        opt(
            "Cards to compile for on any machine, by compute capability: sm86 (Ampere), "
            "sm89 (Ada), sm120 (Blackwell); by default these and the card in this machine.",
            "SM,SM",
        ),
    ] = "",
    with_bundle: Annotated[
        bool, flag("--with-bundle", "Keep the engines in the bundle's folder, sent with it.")
    ] = False,
    session: Annotated[Path | None, opt("Holds fp16 and bf16 against fp32.", "SESSION.nwb")] = None,
    split: Annotated[str, opt("The scored part of the recording.")] = "last:0.2",
    bound: Annotated[float, opt("R2 that may be lost.")] = 0.01,
    as_json: Annotated[bool, flag("--json", "Print the build's record.")] = False,
) -> None:
    """Compile a bundle's graph for a device."""
    from export.bundle import open_bundle
    from export.engines.build import build as compile_graph
    from streams.long_work import LongWork

    opened, judge = open_bundle(bundle), None
    if session is not None:
        from calibration.precision_gate import PrecisionGate

        judge = PrecisionGate(opened, session, split).judge
    with LongWork(f"building for {backend}"):
        made = compile_graph(
            opened,
            backend,
            precision,
            targets=[name.lower() for name in listed(target)],
            with_bundle=with_bundle,
            judge=judge,
            bound=bound,
            say=_say,
        )
    if as_json:
        sys.stdout.write(json.dumps({"path": str(made.path), **made.record}, indent=1) + "\n")
        return
    if not made.is_judged:
        sys.stdout.write(f"{made.path}\nnot to be served yet: name a recording with --session\n")
        return
    choice = backend if precision == "fp32" else f"{backend}:{precision}"
    sys.stdout.write(f'{made.path}\nto serve with it: backend = "{choice}" under [decoder]\n')


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def evaluate(
    bundle: Bundle,
    sessions: Annotated[list[Path], arg("SESSION.nwb", "Recordings.")],
    split: Annotated[
        str | None,
        opt("last:SHARE, all, START-STOP,... or trials:CONDITION; else as held out.", "PART"),
    ] = None,
    sessions_config: SessionsConfig = None,
    falcon: Annotated[str | None, opt("Read and score files as FALCON does.", "m1|m2|h1")] = None,
    figure: Annotated[Path | None, opt("Draw decodes and behaviour here.")] = None,
    blocks: Annotated[float | None, opt("R2 of each S seconds.", "S")] = None,
    against: Annotated[str | None, opt("A backend whose decodes are compared.")] = None,
    as_json: Json = False,
) -> None:
    """Decode recordings causally and score the decoder."""
    from streams.long_work import LongWork

    if falcon is not None:
        from calibration.errors import FalconError
        from calibration.falcon.scoring import evaluate_falcon

        given = {"--figure": figure, "--blocks": blocks, "--against": against}
        given["--sessions"] = sessions_config
        for option in (name for name, value in given.items() if value is not None):
            raise FalconError(f"{option} cannot be had with --falcon: leave one of them out")
        with LongWork(f"evaluating {len(sessions)} files"):
            result = evaluate_falcon(bundle, sessions, falcon, split=split or "all")
    else:
        from calibration import evaluate as scoring

        with LongWork("evaluating") as work:
            result = scoring.evaluate(
                bundle,
                sessions,
                split=split,
                sessions_config=sessions_config,
                figure=figure,
                blocks_s=blocks,
                against=against,
                on_session=lambda i, path: work.tell(f"{path}, {i + 1} of {len(sessions)}"),
            )
    sys.stdout.write(json.dumps(result, indent=None if as_json else 2) + "\n")


def baseline(
    config: Config,
    names: Annotated[str, opt("Which, separated by commas.")] = "wiener,kalman,gru",
    seed: Annotated[int | None, opt("Seed of the GRU; else the config's.")] = None,
    out: Annotated[Path | None, opt("Run that wrote simulated sessions.", "RUN")] = None,
    as_json: Json = False,
) -> None:
    """Fit and score what a decoder must beat."""
    from rich.console import Console

    from calibration.baselines import evaluate_baselines
    from streams.long_work import LongWork

    errors = Console(stderr=True)
    with LongWork("fitting baselines"):
        result = evaluate_baselines(
            config,
            names.split(","),
            seed=seed,
            run_dir=out,
            on_progress=lambda session, name: errors.print(f"{session}: fitting {name} ..."),
        )
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        Console().print(*(_baselines(id_, one) for id_, one in result["sessions"].items()))


def _baselines(session: str, results: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    # In 80 columns, as a terminal has at first.
    table = Table(
        title=session, title_justify="left", box=box.SIMPLE, pad_edge=False, collapse_padding=True
    )
    for heading in ("baseline", "output", "R2", "95 %", "fit", "decode p50"):
        table.add_column(heading, no_wrap=True)
    for name, result in results.items():
        for output, score in result["outputs"].items():
            r2 = " / ".join(f"{value:.3f}" for value in score["r2"])
            ci = ", ".join(f"{low:.2f}-{high:.2f}" for low, high in score["ci"])
            fit, decode = f"{result['fit_s']:.1f} s", f"{result['decode_ms']['p50']:.3f} ms"
            table.add_row(name, output, r2, ci, fit, decode)
    return table


def adapt(
    bundle: Bundle,
    session: Session,
    out: Out,
    seconds: Annotated[float, opt("How much to learn from.")] = 60.0,
    start: Annotated[float | None, opt("Where that begins; else the first label.")] = None,
    same_array: Annotated[bool, flag("--same-array", "Unit keys name the same channels.")] = False,
    test: Annotated[str, opt("The part that is scored, never learnt from.")] = "last:0.2",
    sessions_config: SessionsConfig = None,
    no_gradient: Annotated[
        bool, flag("--no-gradient", "Closed form alone: in under a second, without torch.")
    ] = False,
    unfreeze: Annotated[bool, flag("--unfreeze", "Then let the network learn too.")] = False,
    still: Annotated[bool, flag("--still", "Do not follow the drift of rates.")] = False,
    seed: Annotated[int, opt("Seed of the learning.")] = 0,
    sign_key: SignKey = None,
    as_json: Json = False,
) -> None:
    """Adapt a decoder to a new session's neurons."""
    from export.signing.signer import signer_of

    sign_it = signer_of(sign_key)
    from rich.console import Console
    from rich.progress import Progress

    from calibration.adaptation import adapt as adapting
    from streams.long_work import LongWork

    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True) as bar,
        LongWork("adapting", has_bar=console.is_terminal) as work,
    ):
        task = bar.add_task("adapting", total=None)

        def on_progress(done: int, most: int) -> None:
            bar.update(task, completed=done, total=most)
            work.tell(f"step {done} of at most {most}")

        result = adapting.adapt(
            bundle,
            session,
            out=out,
            seconds=seconds,
            start_s=start,
            same_array=same_array,
            test=test,
            gradient=not no_gradient,
            unfreeze=unfreeze,
            follow_drift=not still,
            seed=seed,
            sessions_config=sessions_config,
            on_progress=on_progress,
        )
    sign_it(out)
    sys.stdout.write(json.dumps(result, indent=None if as_json else 2) + "\n")


def sign(
    bundle: Annotated[Path, arg("BUNDLE", "Folder of the decoder.")],
    key: Annotated[Path, opt("The secret key, from `spikeloop keys --signing`.", "FILE")],
) -> None:
    """Sign a bundle, engines in its folder included."""
    from export.signing.signer import signer_of

    signer_of(key)(bundle)
    sys.stdout.write(f"{bundle}: signed\n")


COMMANDS: dict[str, Command] = {
    "train": train,
    "tune": tune,
    "export": export,
    "build": build,
    "evaluate": evaluate,
    "baseline": baseline,
    "adapt": adapt,
    "sign": sign,
}
