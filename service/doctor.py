"""`spikeloop doctor`: what would stop the daemon from working here, and what to do about it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.backends.opening import open_backend
from export.backends.table import AUTO, GPU_BACKENDS, parse_choice
from export.bundle import open_bundle
from export.choice.ranking import Ranking
from export.shipped import bundle_path
from export.tensorrt.library import RTX_INSTALL
from service.bench.machine import version_of
from service.config import DecoderConfig, RecordConfig, ServeConfig, load_config
from service.daemon.access import read_access
from service.daemon.compose import make_source, signers_of
from service.daemon.daemon import Daemon
from service.daemon.lifeline import Lifeline
from service.errors import HANDLED, ExitCode
from service.loop.intake.rejected import CAUSES, FAULT_SHARE
from service.loop.intake.source import Source
from service.loop.validity import UNKNOWN_SHARE
from service.setup.report import write_report
from service.telemetry.unit_numbers import shift_of, strangers_of
from streams.clock import MonotonicClock
from streams.errors import StreamLostError
from streams.lsl.inlets import lsl_now, visible_streams
from streams.wire.sockets import Publisher

ROOMS = ("streams", "decoders", "export", "calibration", "service")
EXTRAS = {
    "cpu": "onnxruntime",
    "rtx": "tensorrt-rtx-cu13-libs",
    "numba": "numba",
    "nwb": "pynwb",
    "train": "torch",
    "tune": "optuna",
    "page": "bokeh",
    "metrics": "prometheus_client",
}
CLOCK_LIMIT_S = 5e-3
UNITS_OVER_S = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    said: str


def doctor(
    config_path: Path | None, *, gpu: bool = False, report: Path | None = None, as_json: bool
) -> int:
    """Look at everything and say what was found.

    Args:
        config_path: of the daemon to be served; None for what any daemon needs.
        gpu: look for a GPU too, and prove it with an engine; done by itself where the config names
            a backend that runs on one.
        report: a file to write for a bug report; None for none.
        as_json: print the findings as JSON.

    Returns:
        0 where nothing stops the daemon, 5 where a GPU was asked for and does not decode, else 1.

    Raises:
        ConfigError: the config file cannot be used.
    """
    config = load_config(config_path, ServeConfig) if config_path else None
    findings = list(_examine(config))
    proofs = list(_gpu()) if gpu or (config and _names_gpu(config)) else []
    findings += proofs
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in findings]) + "\n")
    else:
        _print(findings)
    if report is not None:
        write_report(report, findings, config)
    if not all(one.ok for one in proofs):
        return ExitCode.BACKEND
    return ExitCode.DONE if all(one.ok for one in findings) else ExitCode.GUARD


def _examine(config: ServeConfig | None) -> Iterator[Finding]:
    yield _packages()
    yield _runtimes()
    yield Finding("extras", True, _extras())
    apart_s = abs(lsl_now() - MonotonicClock().now())
    yield Finding(
        "clock", apart_s < CLOCK_LIMIT_S, f"LSL's clock is {apart_s * 1e6:.0f} us from ours"
    )
    streams = visible_streams(1.0)
    listed = "; ".join(str(stream) for stream in streams) or (
        "none: is a source running, and is multicast (UDP 16571) let through?"
    )
    yield Finding("LSL streams seen", True, listed)
    looked_at = config or ServeConfig(decoder=DecoderConfig(bundle="shipped:demo"))
    yield _ports(looked_at)
    bundle = _bundle(looked_at.decoder)
    yield bundle
    if config is not None:
        yield recordings(config.record)
        yield from _source(config, bundle_opens=bundle.ok)


def recordings(config: RecordConfig) -> Finding:
    """Say whether runs can be recorded, and how much room there is."""
    if not config.enabled:
        return Finding("recordings", True, "none are made: `enabled = false` under [record]")
    folder = Path(config.folder).absolute()
    made = next(path for path in (folder, *folder.parents) if path.exists())
    if not made.is_dir() or not os.access(made, os.W_OK | os.X_OK):
        return Finding("recordings", False, f"{folder} cannot be written: see {made}")
    free_gb = shutil.disk_usage(made).free / 1e9
    most = f"{config.limit_gb:g} GB at most" if config.limit_gb else "no limit"
    short = bool(config.limit_gb) and free_gb < config.limit_gb
    warning = "; the disk may be full before that: lower `limit_gb` under [record]" if short else ""
    return Finding("recordings", True, f"{folder}: {most}, {free_gb:.0f} GB free{warning}")


def _names_gpu(config: ServeConfig) -> bool:
    chosen = (config.decoder.backend, *config.decoder.fallback)
    named = [name for name in chosen if name != AUTO]
    return any(parse_choice(name)[0] in GPU_BACKENDS for name in named)


def _gpu() -> Iterator[Finding]:
    """The GPU with TensorRT, proven by the shipped decoder."""
    try:
        from export.tensorrt.proof import prove_gpu
    except ImportError as error:  # onnx, which engines are made of
        yield Finding("TensorRT", False, f"{error}: {RTX_INSTALL}")
        return
    for looked in prove_gpu(open_bundle(bundle_path("shipped:demo"))):
        yield Finding(looked.what, looked.ok, looked.said)


def _packages() -> Finding:
    here = Path(__file__).parents[1]
    strangers = []
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        places = list(spec.submodule_search_locations or []) if spec else []
        if not any(Path(place).resolve() == (here / room).resolve() for place in places[:1]):
            strangers.append(f"{room} at {places[0] if places else 'nowhere'}")
    said = (
        f"all from {here}"
        if not strangers
        else (
            f"not this distribution's: {', '.join(strangers)}. Run in an environment of its own, "
            "and not from a folder that holds folders of these names"
        )
    )
    return Finding("packages", not strangers, said)


def _runtimes() -> Finding:
    present = {name for name in ("onnxruntime", "onnxruntime-gpu") if version_of(name)}
    if len(present) == 2:
        return Finding(
            "ONNX Runtime", False,
            "onnxruntime and onnxruntime-gpu are both installed, which leaves a CPU-only daemon "
            "without a word: pip uninstall both, then install one of the extras `cpu`, `gpu`",
        )  # fmt: skip
    if not present:
        return Finding("ONNX Runtime", False, "not installed: pip install 'spikeloop[cpu]'")
    name = present.pop()
    return Finding("ONNX Runtime", True, f"{name} {version_of(name)}")


def _extras() -> str:
    return ", ".join(
        f"{extra}: {name} {version_of(name) or 'not installed'}" for extra, name in EXTRAS.items()
    )


def _ports(config: ServeConfig) -> Finding:
    def try_both() -> str:
        keys, clients = read_access(config.output)
        for endpoint in (config.output.decode, config.output.control):
            Publisher(endpoint, keys, clients=clients).close()
        return f"{config.output.decode} and {config.output.control} are free"

    return _attempt("ports", try_both)


def _bundle(config: DecoderConfig) -> Finding:
    def open_it() -> str:
        bundle = open_bundle(bundle_path(config.bundle), signers_of(config))
        opened = open_backend(bundle, config.backend, config.fallback)
        return (
            f"{bundle.manifest.name} ({bundle.manifest.id[:12]}) on {opened.backend.name}: parity "
            f"within {opened.parity_error:.1e}, a step takes p99 {opened.step_p99_s * 1e3:.3f} ms"
            f"{_chosen(opened.ranking)}"
        )

    return _attempt(f"bundle {config.bundle}", open_it)


def _chosen(ranking: Ranking | None) -> str:
    """Return the times by which `auto` chose."""
    if ranking is None:
        return ""
    times = ", ".join(f"{name} {ms:.3f} ms" for name, ms in ranking.step_ms.items())
    when = "as remembered" if ranking.remembered else "timed now"
    note = f"; it will be timed again: {ranking.note}" if ranking.note else ""
    return f"; `auto` took the fastest after a wait, {when}: {times}{note}"


def _source(config: ServeConfig, *, bundle_opens: bool) -> Iterator[Finding]:
    """Open the stream as `serve` does, by the same code, and listen to its units for a while."""
    if not bundle_opens:
        yield _attempt(
            "input stream", lambda: _stream(make_source(config.input, (), MonotonicClock()))
        )
        return
    publisher = Publisher("tcp://127.0.0.1:*")
    made: list[Daemon] = []

    def make() -> str:
        bundle = open_bundle(bundle_path(config.decoder.bundle), signers_of(config.decoder))
        made.append(Daemon(config, bundle, publisher, lifeline=Lifeline(), hung={}))
        return str(made[0].source.inlet.description)

    try:
        yield _attempt("input stream", make)
        if made:
            yield _units(made[0])
    finally:
        for daemon in made:
            daemon.close()
        publisher.close()


def _stream(source: Source) -> str:
    said = str(source.inlet.description)
    source.close()
    return said


def _units(daemon: Daemon) -> Finding:
    """Listen for a second: are the units that fire the decoder's?"""
    source, clock = daemon.source, MonotonicClock()
    n_spikes: Counter[str] = Counter()
    n_invalid = 0
    t_end_s = clock.now() + UNITS_OVER_S
    try:
        while (left_s := t_end_s - clock.now()) > 0:
            samples, stamps, t_s = source.pull(min(left_s, 0.25))
            arrival = source.arrival(samples, stamps, t_s, daemon.schedule.zero_s)
            batch, n_invalid = arrival.batch, n_invalid + len(arrival.invalid_us)
            for unit, n in zip(batch.unit.tolist(), batch.count.tolist(), strict=True):
                n_spikes[source.keys[unit]] += n
    except StreamLostError as err:
        return Finding("units", False, str(err))
    known = {unit.key for unit in daemon.bundle.manifest.units}
    n_all, n_known = n_spikes.total(), sum(n for key, n in n_spikes.items() if key in known)
    if n_invalid > FAULT_SHARE * (n_all + n_invalid):
        return Finding("units", False, f"{n_invalid} of {n_all + n_invalid} {CAUSES['invalid']}")
    if not n_all:
        return Finding("units", True, f"no spike came within {UNITS_OVER_S:g} s")
    said = shift_of(n_spikes, known)
    if not said and n_all - n_known > UNKNOWN_SHARE * n_all:
        said = strangers_of(n_spikes, known)
    told = f"{n_known} of {n_all} spikes within {UNITS_OVER_S:g} s are of units that it knows"
    return Finding("units", not said, said or told)


def _attempt(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, attempt())
    except HANDLED as err:
        return Finding(what, False, str(err))


def _print(findings: list[Finding]) -> None:
    table = Table(title="spikeloop doctor", title_justify="left", show_header=False)
    for one in findings:
        table.add_row("[green]ok[/]" if one.ok else "[red]no[/]", one.what, escape(one.said))
    Console().print(table)
