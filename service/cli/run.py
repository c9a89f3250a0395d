"""Commands that run the loop and its sources."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from service.cli.options import (
    SECONDS_OF_RUN,
    Command,
    Config,
    DelayMs,
    Json,
    Name,
    Units,
    arg,
    flag,
    opt,
    quieten_lsl,
)
from service.cli.page import Page, page_of_daemon, require_bokeh

if TYPE_CHECKING:
    from streams.simulation.subject import TaskName
    from streams.simulation.user import Style

SECONDS_WITH_PAGE = 600.0


def demo(
    seconds: Annotated[
        float | None, opt("Length: 30; 120 for --recalibrate; 600 with --page.")
    ] = None,
    as_json: Annotated[bool, flag("--json", "Print one JSON object instead of a screen.")] = False,
    recalibrate: Annotated[
        bool, flag("--recalibrate", "A day on which the decoder fails.")
    ] = False,
    shuffle_units: Annotated[bool, flag("--shuffle-units", "The control: units permuted.")] = False,
    delay_ms: DelayMs = 0.0,
    subject: Annotated[int, opt("Seed of the subject.")] = 1,
    day: Annotated[int | None, opt("8; the shipped decoder knows 0 to 7.")] = None,
    bundle: Annotated[str, opt("Another decoder.")] = "shipped:demo",
    backend: Annotated[str, opt("Runs the network.")] = "auto",
    record: Annotated[Path | None, opt("Record the run in this folder.", "FOLDER")] = None,
    page: Page = False,
) -> int:
    """Close the loop with a simulated subject."""
    quieten_lsl()
    if page:
        require_bokeh()
    if recalibrate:
        from service.demo import recalibrate as lost_day
        from service.errors import ConfigError

        if shuffle_units or delay_ms:
            raise ConfigError("--recalibrate takes neither --shuffle-units nor --delay-ms")
        return lost_day.recalibrate(
            seconds=seconds or 120.0,
            as_json=as_json,
            subject=subject,
            day=25 if day is None else day,
            bundle=bundle,
            backend=backend,
            record=record,
            page=page,
        )
    from service.demo.demo import demo as close_the_loop

    return close_the_loop(
        seconds=seconds or (SECONDS_WITH_PAGE if page else 30.0),
        as_json=as_json,
        shuffle_units=shuffle_units,
        subject=subject,
        day=8 if day is None else day,
        bundle=bundle,
        delay_s=delay_ms * 1e-3,
        backend=backend,
        record=record,
        page=page,
    )


def init(
    config: Annotated[Path, arg("CONFIG.toml", "The file to be written.")] = Path("spikeloop.toml"),
    stream: Annotated[
        str | None, opt("LSL stream of spikes; `simulated` for none yet.", "NAME")
    ] = None,
    columns: Annotated[
        str | None, opt("Names of its channels, where its labels do not tell.", "A,B,...")
    ] = None,
    decoder: Annotated[str | None, opt("Folder of the decoder, or shipped:demo.", "BUNDLE")] = None,
    hop_ms: Annotated[float | None, opt("Milliseconds between decodes.")] = None,
    decode: Annotated[
        str | None, Option(help="Address at which decodes leave.", envvar="SPIKELOOP_DECODE")
    ] = None,
    seconds: Annotated[float, opt("How long to listen to the streams.")] = 3.0,
    yes: Annotated[bool, flag("--yes", "Ask nothing: take what fits best.")] = False,
    force: Annotated[bool, flag("--force", "Write over a file that is there.")] = False,
) -> int:
    """Find your stream, ask five questions, write a config.

    What is given as an option is not asked. Without a terminal nothing is asked.
    """
    quieten_lsl()
    from service.setup.init import Given, prompt
    from service.setup.init import init as begin

    given = Given(stream=stream, columns=columns, decoder=decoder, hop_ms=hop_ms, decode=decode)
    is_asked = sys.stdin.isatty() and not yes
    return begin(config, given, seconds=seconds, force=force, ask=prompt if is_asked else None)


def serve(
    config: Config,
    log: Annotated[Literal["human", "json"], opt("Form of the log.")] = "human",
    announce: Annotated[Path | None, opt("Write the bound addresses to this file (JSON).")] = None,
    page: Page = False,
) -> int:
    """Run the daemon."""
    quieten_lsl()
    from service.config import ServeConfig, load_config
    from service.daemon.guardian import guard
    from service.daemon.serve import serve as run_daemon
    from service.logs import set_up

    set_up(log)
    given = load_config(config, ServeConfig)
    with page_of_daemon(config, announce) if page else nullcontext(announce) as announced:
        return guard(
            lambda config, lifeline, hung: run_daemon(
                config, announced, lifeline=lifeline, hung=hung
            ),
            given,
        )


def simulate(
    subject: Annotated[int, opt("Seed of the subject.", "SEED")] = 1,
    day: Annotated[int, opt("Day of the subject; its units drift from day to day.")] = 1,
    units: Units = 96,
    task: Annotated[Literal["centre-out", "random"], opt("Targets.")] = "centre-out",
    seed: Annotated[int, opt("Seed of the session: noise and targets.")] = 0,
    style: Annotated[Literal["reach", "steer"], opt("How the hand moves, with --write.")] = "reach",
    decodes: Annotated[str | None, opt("The daemon's decodes, to close the loop.")] = None,
    name: Name = "spikeloop-sim",
    seconds: Annotated[float | None, Option(help=SECONDS_OF_RUN)] = None,
    shuffle_units: Annotated[bool, flag("--shuffle-units", "The control: units permuted.")] = False,
    delay_ms: DelayMs = 0.0,
    summary: Annotated[Path | None, opt("Write how it went here (JSON).")] = None,
    write: Annotated[Path | None, opt("Write a session instead of streaming.", "FILE.nwb")] = None,
    minutes: Annotated[float, opt("Length of the session written.")] = 5.0,
    until_stdin_ends: Annotated[
        bool, flag("--until-stdin-ends", "End with the program that started it.")
    ] = False,
) -> None:
    """Be a simulated subject, live on LSL or to a file."""
    quieten_lsl()
    from rich.console import Console

    from service.errors import ConfigError
    from service.signals import or_stdin_ended, until_signalled
    from streams.simulation.live import SubjectOptions, run_subject

    if units < 1 or day < 0 or minutes <= 0:
        raise ConfigError("--units and --minutes must be above 0, and --day not below")
    note = Console(stderr=True)
    if write is not None:
        note.print(_written_session(write, subject, day, minutes, units, task, seed, style))
        return
    how = f"watching the decodes of {decodes}" if decodes else "moving the cursor by hand"
    note.print(f"subject {subject}, day {day}, {units} units as {name!r} on LSL, {how}")
    options = SubjectOptions(
        subject_seed=subject,
        day=day,
        n_units=units,
        task=task,
        control="decoder" if decodes else "hand",
        decodes=decodes or "",
        shuffle_units=shuffle_units,
        name=name,
        seconds=seconds,
        seed=seed,
        delay_s=delay_ms * 1e-3,
        summary_path=summary,
    )
    is_signalled = until_signalled()
    told = run_subject(options, or_stdin_ended(is_signalled) if until_stdin_ends else is_signalled)
    note.print(
        f"{told.targets_acquired} targets acquired in {told.engaged_s:.0f} s, "
        f"{told.spikes_sent} spikes sent"
    )


def _written_session(
    path: Path,
    subject: int,
    day: int,
    minutes: float,
    units: int,
    task: TaskName,
    seed: int,
    style: Style,
) -> str:
    """Write a simulated session; return what to say of it."""
    from service.errors import ConfigError

    # Where the daemon alone is installed, a subject lives on LSL without NWB's packages.
    try:
        from streams.sessions.nwb.writer import write_session
    except ImportError as err:
        raise ConfigError(f"NWB cannot be written: {err}; pip install 'spikeloop[nwb]'") from err
    from streams.simulation.openloop import record_open_loop

    session = record_open_loop(subject, day, minutes, units, task, seed, style)
    write_session(session, path)
    return (
        f"{path}: {session.id}, {len(session.spikes)} spikes of {len(session.unit_keys)} "
        f"units in {session.duration_s:.0f} s"
    )


def replay(
    file: Annotated[Path, arg("FILE.nwb", "The recording.")],
    speed: Annotated[float, opt("Times real time; other than 1 for counting only.")] = 1.0,
    start: Annotated[float | None, opt("Begin here, seconds of the recording.")] = None,
    stop: Annotated[float | None, opt("End here.")] = None,
    counts_ms: Annotated[float | None, opt("Send counts in regular bins of this length.")] = None,
    block_ms: Annotated[float, opt("Length of the blocks that are pushed.")] = 5.0,
    sessions: Annotated[
        Path | None, opt("Its [sessions] says what is read.", "CONFIG.toml")
    ] = None,
    name: Annotated[str, opt("Name of the stream; else the recording's.")] = "",
    wait: Annotated[float, opt("Seconds to wait for a listener.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Stream a recording over LSL as it happened."""
    quieten_lsl()
    from rich.console import Console
    from rich.progress import Progress as Bar

    from decoders.config import load_sessions
    from service.signals import until_signalled
    from streams.sessions.choice import EVERYTHING
    from streams.sessions.replay.player import ReplayProgress, run_replay

    console = Console(stderr=True)
    with Bar(console=console, transient=True) as bar:
        bar_of_file = bar.add_task(file.name, total=None)

        def on_progress(at: ReplayProgress) -> None:
            span_s = at.stop_s - at.start_s
            bar.update(bar_of_file, total=span_s, completed=at.t_s - at.start_s)

        sent = run_replay(
            file,
            speed=speed,
            start_s=start,
            stop_s=stop,
            counts_ms=counts_ms,
            name=name,
            block_ms=block_ms,
            wait_s=wait,
            choice=load_sessions(sessions).choice(None) if sessions else EVERYTHING,
            on_waiting=lambda up: console.print(f"stream {up!r} is up, waiting for a listener"),
            on_progress=on_progress,
            is_stopped=until_signalled(),
        )
    if as_json:
        sys.stdout.write(json.dumps(asdict(sent)) + "\n")
    else:
        sys.stderr.write(
            f"{sent.n_spikes} spikes of {sent.n_units} units sent as {sent.name!r}, "
            f"{sent.start_s:g} to {sent.stop_s:g} s of the recording\n"
        )


COMMANDS: dict[str, Command] = {
    "demo": demo,
    "init": init,
    "serve": serve,
    "simulate": simulate,
    "replay": replay,
}
