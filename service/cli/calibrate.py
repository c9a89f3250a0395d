"""Commands of the morning: record, convert, calibrate."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

from service.cli.options import (
    DEFAULT_CONTROL,
    Command,
    Control,
    Keys,
    UnitNumbers,
    arg,
    flag,
    listed,
    opt,
    quieten_lsl,
)
from service.cli.page import Page, page_beside

if TYPE_CHECKING:
    from streams.sessions.record.search import Wanted
    from streams.sessions.session import Session

ITSELF = (sys.executable, "-m", "service.cli")
"""Starts this command line again, installed or not."""


def calibrate(
    files: Annotated[
        list[Path],
        arg("CONFIG.toml|RECORDING...", "The config; with --from-run, recordings of driving."),
    ],
    from_run: Annotated[
        bool,
        flag("--from-run", "From recordings of driving, the newest last: no calibration block."),
    ] = False,
    base: Annotated[
        Path | None, opt("With --from-run: the decoder that drove; else the run's.", "BUNDLE")
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", metavar="FOLDER", help="With --from-run: where it is written."),
    ] = None,
    at: Annotated[str, opt("With --from-run: wait for this time of day.", "HH:MM")] = "",
    swap: Annotated[
        bool, flag("--swap", "With --from-run: put it in service, by way of shadow, if better.")
    ] = False,
    control: Control = DEFAULT_CONTROL,
    keys: Keys = None,
    folder: Annotated[Path | None, opt("Folder of this calibration.")] = None,
    auto: Annotated[bool, flag("--auto", "Ask nobody: go by the config's thresholds.")] = False,
    as_json: Annotated[
        bool, flag("--json", "With --auto or --from-run: print a JSON object.")
    ] = False,
    resume: Annotated[bool, flag("--resume", "Go on where the last one was left.")] = False,
    page: Page = False,
) -> int:
    """Make today's decoder, prove it, put it in service.

    \b
    exit codes:
      0  done
      8  it was rejected, or is no better than the decoder that drove
      3  the streams, or the recordings, do not tell what is needed
      4  a decoder was refused
      7  the daemon is not reachable
    """  # noqa: D301 - \b keeps the lines of a paragraph in the help
    quieten_lsl()
    from service.errors import ConfigError

    if from_run:
        from service.cli.from_run import Asked
        from service.cli.from_run import from_run as make

        return make(Asked(files, base, out, at, control if swap else "", keys, as_json))
    if len(files) != 1 or base or out or at or swap:
        raise ConfigError(
            "a calibration takes one CONFIG.toml; recordings, --base, -o, --at and --swap go with "
            "--from-run"
        )
    (config,) = files
    from calibration.wizard import start

    with page_beside(*_page_arguments(config)) if page else nullcontext():
        return start.calibrate(
            config, folder=folder, auto=auto, as_json=as_json, resume=resume, command=ITSELF
        )


def _page_arguments(config: Path) -> list[str]:
    """Say to the page which daemon the wizard deploys to, and which streams it reads."""
    from calibration.wizard.config import load_config

    given = load_config(config)
    keys = ["--keys", given.deploy.keys] if given.deploy.keys else []
    named = {"--position": given.behavior.name, "--markers": given.markers.name}
    streams = [part for name, value in named.items() if value for part in (name, value)]
    return ["--control", given.deploy.control, *keys, *streams]


def record(
    file: Annotated[Path, arg("FILE.xdf", "File to be written.")],
    stream: Annotated[list[str], opt("A stream; may be given again.", "TYPE[:NAME[@HOST]]")],
    stamps: Annotated[
        Literal["lsl", "arrival"], opt("arrival: for senders with another clock.")
    ] = "lsl",
    seconds: Annotated[float | None, opt("End after so long.")] = None,
    wait: Annotated[float, opt("Seconds to look for each stream.")] = 5.0,
    budget: Annotated[float, opt("Samples/s to be ready for.")] = 50_000.0,
    status: Annotated[Path | None, opt("Say here how it stands (JSON).")] = None,
    until_stdin_ends: Annotated[
        bool, flag("--until-stdin-ends", "End with the program that started it.")
    ] = False,
) -> int:
    """Record LSL streams to an XDF file."""
    quieten_lsl()
    from service.errors import ExitCode
    from service.signals import or_stdin_ended, until_signalled
    from streams.sessions.record import recorder

    is_signalled = until_signalled()
    is_stopped = or_stdin_ended(is_signalled) if until_stdin_ends else is_signalled
    told = recorder.record(
        [_wanted(text, budget) for text in stream],
        file,
        seconds=seconds,
        wait_s=wait,
        is_stopped=is_stopped,
        status_path=status,
        stamps=stamps,
        say=_say,
    )
    sys.stdout.write(json.dumps(told) + "\n")
    for text in told["lost"]:
        _say(text)
    return ExitCode.GUARD if told["lost"] else ExitCode.DONE


def _say(text: str) -> None:
    sys.stderr.write(f"spikeloop: {text}\n")
    sys.stderr.flush()


def _wanted(text: str, budget_per_s: float) -> Wanted:
    """The stream that `TYPE[:NAME[@HOST]]` names."""
    from streams.sessions.record.search import Wanted

    kind, _, rest = text.partition(":")
    name, _, hostname = rest.rpartition("@") if "@" in rest else (rest, "", "")
    return Wanted(kind, name, hostname=hostname, budget_per_s=budget_per_s)


def convert(
    files: Annotated[list[Path], arg("FILE.xdf|RUN", "The recordings, or a recorded run.")],
    out: Annotated[Path, Option("--out", "-o", metavar="SESSION.nwb", help="The session.")],
    session_id: Annotated[
        str | None, Option("--id", metavar="SUBJECT/YYYY-MM-DD/NAME", help="Its id.")
    ] = None,
    bundle: Annotated[Path | None, opt("A decoder whose units the session has, too.")] = None,
    spikes: Annotated[str, opt("Stream of spikes.", "TYPE[:NAME]")] = "Spikes",
    markers: Annotated[str, opt("Stream of markers; '' for none.", "TYPE[:NAME]")] = "Markers",
    array: Annotated[str, opt("Prefix of the unit keys.")] = "",
    columns: Annotated[str, opt("Columns of spikes, if no labels tell.", "A,B,...")] = "",
    ignore_units: UnitNumbers = "",
    trial_start: Annotated[str, opt("How the marker begins that starts a trial.")] = "trial_start",
    trial_stop: Annotated[str, opt("How the marker begins that ends a trial.")] = "trial_stop",
    behavior: Annotated[
        list[str] | None, opt("A stream of behaviour; may be given again.", "TYPE[:NAME]")
    ] = None,
    body: Annotated[str, opt("What moves, if the labels do not say.")] = "cursor",
    channel: Annotated[
        list[str] | None, opt("An axis of what moves; may be given again.", "LABEL")
    ] = None,
) -> None:
    """Make an NWB session of XDF recordings, or of a run that the daemon recorded."""
    if any(file.is_dir() for file in files):
        return _convert_run(files, out, session_id)
    from streams.sessions.convert import convert as converting
    from streams.sessions.nwb.writer import write_session

    kind, _, name = spikes.partition(":")
    marker_kind, _, marker_name = markers.partition(":")
    named = [text.partition(":") for text in behavior or ()]
    reading = converting.Reading(
        spikes=kind,
        spikes_name=name,
        array=array,
        columns=listed(columns),
        ignore_units=[_number_or_key(one) for one in listed(ignore_units)],
        known_keys=_keys_of(bundle) if bundle else (),
        markers=marker_kind,
        markers_name=marker_name,
        trial_start=trial_start,
        trial_stop=trial_stop,
        behavior=[(kind, name) for kind, _, name in named],
        body=body,
        channels=tuple(channel or ()),
    )
    session = converting.convert(files, session_id, reading, needs_trials=True)
    said = session.provenance[converting.MENDED].splitlines()
    for text in said:
        _say(text)
    write_session(session, out)
    sys.stdout.write(json.dumps(_described(session) | {"said": said}) + "\n")


def _described(session: Session) -> dict[str, Any]:
    return {
        "session": session.id,
        "units": len(session.unit_keys),
        "spikes": len(session.spikes),
        "seconds": round(session.duration_s, 3),
        "trials": 0 if session.trials is None else len(session.trials),
        "behavior": sorted(session.behavior),
    }


def _convert_run(files: list[Path], out: Path, session_id: str | None) -> None:
    """Make a session of one recorded run."""
    from service.errors import ConfigError
    from service.redecode.session import session_of_run
    from streams.sessions.nwb.writer import write_session

    if len(files) > 1:
        raise ConfigError("one recorded run makes one session: name its folder alone")
    session, tables, said = session_of_run(files[0], session_id)
    for text in said:
        _say(text)
    write_session(session, out, tables)
    told = _described(session)
    told["series"] = told.pop("behavior")  # decodes are no behaviour
    told |= {"tables": {name: len(table) for name, table in tables.items()}, "said": said}
    sys.stdout.write(json.dumps(told) + "\n")


def _number_or_key(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _keys_of(bundle: Path) -> tuple[str, ...]:
    from export.bundle import open_bundle

    return tuple(open_bundle(bundle).row_of_key)


COMMANDS: dict[str, Command] = {"calibrate": calibrate, "record": record, "convert": convert}
