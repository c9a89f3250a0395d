"""Commands that make decoders and judge them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from export.bundle import DecoderBundle

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    for add in (
        _add_train,
        _add_export,
        _add_evaluate,
        _add_baseline,
        _add_adapt,
        _add_registry,
    ):
        add(commands)


def _add_train(commands: Commands) -> None:
    p = commands.add_parser("train", help="train a decoder")
    p.add_argument("config", type=Path, metavar="CONFIG.toml")
    p.add_argument("--out", type=Path, default=None, metavar="RUN", help="run directory")
    p.add_argument("--resume", action="store_true")
    p.set_defaults(run=_train)


def _train(a: argparse.Namespace) -> None:
    from decoders.train import train

    sys.stdout.write(f"{train(a.config, resume=a.resume, out=a.out)}\n")


def _add_export(commands: Commands) -> None:
    p = commands.add_parser("export", help="make a bundle of a trained decoder")
    p.add_argument("source", type=Path, metavar="RUN|FILE.ckpt")
    p.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE")
    p.add_argument("--session", default=None, help="whose units and session vector")
    poyo = p.add_argument_group("of a torch_brain checkpoint")
    poyo.add_argument("--hop-ms", type=float, default=100.0)
    poyo.add_argument(
        "--output", action="append", default=[], metavar="NAME:UNIT:SCALE[,SCALE]",
        help="what the readout means, for example velocity:cm/s:20,20",
    )  # fmt: skip
    poyo.add_argument("--units", type=Path, default=None, help="JSON: unit key to vocabulary word")
    poyo.add_argument("--trust-pickle", action="store_true", help="run code that the file may hold")
    p.set_defaults(run=_export)


def _export(a: argparse.Namespace) -> None:
    bundle = _export_checkpoint(a) if a.source.is_file() else _export_run(a)
    sys.stdout.write(f"{bundle.path}  {bundle.manifest.name}  {bundle.manifest.id[:12]}\n")


def _export_run(a: argparse.Namespace) -> DecoderBundle:
    from export.graphs.runs import export_trained

    return export_trained(a.source, a.out, session=a.session)


def _export_checkpoint(a: argparse.Namespace) -> DecoderBundle:
    from export.graphs.poyo import export_poyo, parse_output

    return export_poyo(
        a.source,
        a.out,
        hop_s=a.hop_ms * 1e-3,
        session=a.session,
        outputs=[parse_output(text) for text in a.output],
        unit_words=json.loads(a.units.read_text()) if a.units else None,
        trust_pickle=a.trust_pickle,
    )


def _add_evaluate(commands: Commands) -> None:
    p = commands.add_parser("evaluate", help="decode recordings causally and score the decoder")
    p.add_argument("bundle", type=Path)
    p.add_argument("sessions", type=Path, nargs="+", metavar="SESSION.nwb")
    p.add_argument(
        "--split", default=None, metavar="PART",
        help="last:SHARE, all, START-STOP,... or trials:CONDITION; by default what was held out",
    )  # fmt: skip
    _add_sessions_option(p)
    p.add_argument("--falcon", default=None, metavar="m1|m2|h1",
                   help="read and score the files as the FALCON benchmark does")  # fmt: skip
    p.add_argument("--figure", type=Path, default=None)
    p.add_argument("--blocks", type=float, default=None, metavar="S", help="R2 of each S seconds")
    p.add_argument("--against", default=None, help="a backend whose decodes are compared")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_evaluate)


def _add_sessions_option(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--sessions", dest="sessions_config", type=Path, default=None, metavar="CONFIG.toml",
        help="whose [sessions] says what is read (mask, units, trials); as in training otherwise",
    )  # fmt: skip


def _evaluate(a: argparse.Namespace) -> None:
    from calibration.evaluate import evaluate

    if a.falcon is not None:
        return _evaluate_falcon(a)
    result = evaluate(
        a.bundle,
        a.sessions,
        split=a.split,
        sessions_config=a.sessions_config,
        figure=a.figure,
        blocks_s=a.blocks,
        against=a.against,
    )
    sys.stdout.write(json.dumps(result, indent=None if a.json else 2) + "\n")


def _evaluate_falcon(a: argparse.Namespace) -> None:
    from calibration.falcon.errors import FalconError
    from calibration.falcon.scoring import evaluate_falcon

    given = {"--figure": a.figure, "--blocks": a.blocks, "--against": a.against}
    given["--sessions"] = a.sessions_config
    for option in (name for name, value in given.items() if value is not None):
        raise FalconError(f"{option} cannot be had with --falcon: leave one of them out")
    result = evaluate_falcon(a.bundle, a.sessions, a.falcon, split=a.split or "all")
    sys.stdout.write(json.dumps(result, indent=None if a.json else 2) + "\n")


def _add_baseline(commands: Commands) -> None:
    p = commands.add_parser("baseline", help="fit and score what a decoder must beat")
    p.add_argument("config", type=Path, metavar="CONFIG.toml")
    p.add_argument("--names", default="wiener,kalman,gru", help="which, separated by commas")
    p.add_argument("--seed", type=int, default=None, help="of the GRU; by default the config's")
    p.add_argument(
        "--out",
        dest="folder",
        type=Path,
        default=None,
        metavar="RUN",
        help="run that wrote simulated sessions",
    )
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_baseline)


def _baseline(a: argparse.Namespace) -> None:
    from rich.console import Console

    from calibration.baselines import evaluate_baselines

    errors = Console(stderr=True)
    result = evaluate_baselines(
        a.config,
        a.names.split(","),
        seed=a.seed,
        run_dir=a.folder,
        on_progress=lambda session, name: errors.print(f"{session}: fitting {name} ..."),
    )
    if a.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        Console().print(*(_baselines(id_, one) for id_, one in result["sessions"].items()))


def _baselines(session: str, results: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=session, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for heading in ("baseline", "output", "R2", "95 %", "fit", "decode p50"):
        table.add_column(heading, no_wrap=True)
    for name, result in results.items():
        for output, score in result["outputs"].items():
            r2 = " / ".join(f"{value:.3f}" for value in score["r2"])
            ci = ", ".join(f"{low:.2f}-{high:.2f}" for low, high in score["ci"])
            fit, decode = f"{result['fit_s']:.1f} s", f"{result['decode_ms']['p50']:.3f} ms"
            table.add_row(name, output, r2, ci, fit, decode)
    return table


def _add_adapt(commands: Commands) -> None:
    p = commands.add_parser("adapt", help="adapt a decoder to a new session's neurons")
    p.add_argument("bundle", type=Path)
    p.add_argument("session", type=Path, metavar="SESSION.nwb")
    p.add_argument("--seconds", type=float, default=60.0, help="how much to learn from")
    p.add_argument("--start", type=float, default=None, help="where that begins; the first label")
    p.add_argument("--same-array", action="store_true", help="unit keys name the same channels")
    p.add_argument("--test", default="last:0.2", help="the part that is scored, never learnt from")
    _add_sessions_option(p)
    p.add_argument("--unfreeze", action="store_true", help="a second stage: the network learns too")
    p.add_argument("--still", action="store_true", help="do not follow the drift of rates")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE")
    p.add_argument("--json", action="store_true")
    p.set_defaults(run=_adapt)


def _adapt(a: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from calibration.adaptation.adapt import adapt

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("adapting", total=None)
        result = adapt(
            a.bundle,
            a.session,
            out=a.out,
            seconds=a.seconds,
            start_s=a.start,
            same_array=a.same_array,
            test=a.test,
            unfreeze=a.unfreeze,
            follow_drift=not a.still,
            seed=a.seed,
            sessions_config=a.sessions_config,
            on_progress=lambda done, most: bar.update(task, completed=done, total=most),
        )
    sys.stdout.write(json.dumps(result, indent=None if a.json else 2) + "\n")


def _add_registry(commands: Commands) -> None:
    texts = {
        "add": "take a bundle into the registry",
        "list": "the registry's decoders",
        "show": "one decoder of the registry, and what was done with it",
        "use": "make a decoder of the registry the current one",
    }
    for name, text in texts.items():
        p = commands.add_parser(name, help=text)
        p.add_argument("--registry", type=Path, default=Path("bundles"), metavar="FOLDER")
        if name == "add":
            p.add_argument("bundle", type=Path)
        elif name != "list":
            p.add_argument("id", help="or as much of its beginning as is unique")
        if name in ("add", "use"):
            p.add_argument("--why", required=True, help="for the history")
        p.set_defaults(run=_registry, command=name)


def _registry(a: argparse.Namespace) -> None:
    from calibration.registry import Registry, as_json

    registry = Registry(a.registry)
    if a.command == "add":
        sys.stdout.write(registry.add(a.bundle, a.why) + "\n")
    elif a.command == "use":
        sys.stdout.write(registry.promote(a.id, a.why) + "\n")
    elif a.command == "show":
        entry = as_json(registry.show(a.id))
        history = [asdict(event) for event in registry.history() if event.id == entry["id"]]
        sys.stdout.write(json.dumps(entry | {"history": history}, indent=2) + "\n")
    else:
        for entry in map(as_json, registry.entries()):
            mark = "*" if entry["current"] else " "
            line = f"{mark} {entry['id'][:12]}  {entry['created_utc'][:19]}  {entry['name']}"
            sys.stdout.write(f"{line}  {entry['session']}  {entry['r2'] or 'not verified'}\n")
