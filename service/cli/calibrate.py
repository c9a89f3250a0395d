"""Commands of the morning: record, convert, calibrate."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.sessions.record.search import Wanted

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

ITSELF = (sys.executable, "-m", "service.cli")
"""Starts this command line again, installed or not."""


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    for add in (_add_calibrate, _add_record, _add_convert):
        add(commands)


def _add_calibrate(commands: Commands) -> None:
    p = commands.add_parser("calibrate", help="make today's decoder, prove it, put it in service")
    p.add_argument("config", type=Path, metavar="CONFIG.toml")
    p.add_argument("--folder", type=Path, default=None, help="of this calibration")
    p.add_argument("--auto", action="store_true", help="ask nobody: go by the config's thresholds")
    p.add_argument("--json", action="store_true", help="with --auto: one JSON object at the end")
    p.add_argument("--resume", action="store_true", help="go on where the last one was left")
    p.set_defaults(run=_calibrate, uses_lsl=True)


def _calibrate(a: argparse.Namespace) -> int:
    from calibration.wizard.start import calibrate

    return calibrate(
        a.config, folder=a.folder, auto=a.auto, as_json=a.json, resume=a.resume, command=ITSELF
    )


def _add_record(commands: Commands) -> None:
    p = commands.add_parser("record", help="record LSL streams to an XDF file")
    p.add_argument("file", type=Path, metavar="FILE.xdf")
    p.add_argument(
        "--stream",
        action="append",
        required=True,
        metavar="TYPE[:NAME[@HOST]]",
        help="may be given again",
    )
    p.add_argument(
        "--stamps",
        choices=("lsl", "arrival"),
        default="lsl",
        help="arrival: for senders that do not stamp with LSL's clock, at the cost of precision",
    )
    p.add_argument("--seconds", type=float, default=None, help="end after so long")
    p.add_argument("--wait", type=float, default=5.0, help="seconds to look for each stream")
    p.add_argument("--budget", type=float, default=50_000.0, help="samples/s to be ready for")
    p.add_argument("--status", type=Path, default=None, help="say here how it stands (JSON)")
    p.add_argument("--until-stdin-ends", action="store_true", help="end with who started it")
    p.set_defaults(run=_record, uses_lsl=True)


def _record(a: argparse.Namespace) -> int:
    import os

    from service.errors import ExitCode
    from service.simulate import until_signalled
    from streams.clock import wait_readable
    from streams.sessions.record.recorder import record

    is_signalled = until_signalled()

    def is_stopped() -> bool:
        if a.until_stdin_ends and wait_readable(0, 0.0) and not os.read(0, 1024):
            return True
        return is_signalled()

    status = record(
        [_wanted(text, a.budget) for text in a.stream],
        a.file,
        seconds=a.seconds,
        wait_s=a.wait,
        is_stopped=is_stopped,
        status_path=a.status,
        stamps=a.stamps,
        say=_say,
    )
    sys.stdout.write(json.dumps(status) + "\n")
    for text in status["lost"]:
        _say(text)
    return ExitCode.GUARD if status["lost"] else ExitCode.DONE


def _say(text: str) -> None:
    sys.stderr.write(f"spikeloop: {text}\n")
    sys.stderr.flush()


def _wanted(text: str, budget_per_s: float) -> Wanted:
    """The stream that `TYPE[:NAME[@HOST]]` names."""
    from streams.sessions.record.search import Wanted

    kind, _, rest = text.partition(":")
    name, _, hostname = rest.rpartition("@") if "@" in rest else (rest, "", "")
    return Wanted(kind, name, hostname=hostname, budget_per_s=budget_per_s)


def _add_convert(commands: Commands) -> None:
    p = commands.add_parser("convert", help="make an NWB session of XDF recordings")
    p.add_argument("files", type=Path, nargs="+", metavar="FILE.xdf")
    p.add_argument("-o", "--out", type=Path, required=True, metavar="SESSION.nwb")
    p.add_argument("--id", default=None, metavar="SUBJECT/YYYY-MM-DD/NAME")
    p.add_argument("--bundle", type=Path, default=None, help="whose units the session has, too")
    p.add_argument("--spikes", default="Spikes", metavar="TYPE[:NAME]")
    p.add_argument("--markers", default="Markers", metavar="TYPE[:NAME]", help="'' for none")
    p.add_argument("--array", default="", help="prefix of the unit keys")
    p.add_argument("--columns", default="", metavar="A,B,...", help="if the labels do not tell")
    p.add_argument("--ignore-units", default="", metavar="A,B,...", help="numbers, keys or labels")
    p.add_argument("--trial-start", default="trial_start", help="how its marker begins")
    p.add_argument("--trial-stop", default="trial_stop")
    p.add_argument(
        "--behavior",
        action="append",
        default=[],
        metavar="TYPE[:NAME]",
        help="may be given again; every stream of numbers if not given",
    )
    p.add_argument("--body", default="cursor", help="what moves, if the labels do not say")
    p.add_argument(
        "--channel", action="append", default=[], metavar="LABEL",
        help="of an axis of what moves, x first; given again for y and z; else as the labels say",
    )  # fmt: skip
    p.set_defaults(run=_convert)


def _number_or_key(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _convert(a: argparse.Namespace) -> None:
    from streams.sessions.convert.convert import MENDED, Reading, convert
    from streams.sessions.nwb.writer import write_session

    spikes, markers = a.spikes.partition(":"), a.markers.partition(":")
    behavior = [text.partition(":") for text in a.behavior]
    reading = Reading(
        spikes=spikes[0],
        spikes_name=spikes[2],
        array=a.array,
        columns=_listed(a.columns),
        ignore_units=[_number_or_key(one) for one in _listed(a.ignore_units)],
        known_keys=_keys_of(a.bundle) if a.bundle else (),
        markers=markers[0],
        markers_name=markers[2],
        trial_start=a.trial_start,
        trial_stop=a.trial_stop,
        behavior=[(kind, name) for kind, _, name in behavior],
        body=a.body,
        channels=tuple(a.channel),
    )
    session = convert(a.files, a.id, reading, needs_trials=True)
    said = session.provenance[MENDED].splitlines()
    for text in said:
        _say(text)
    write_session(session, a.out)
    n_trials = 0 if session.trials is None else len(session.trials)
    told = {
        "session": session.id,
        "units": len(session.unit_keys),
        "spikes": len(session.spikes),
        "seconds": round(session.duration_s, 3),
        "trials": n_trials,
        "behavior": sorted(session.behavior),
        "said": said,
    }
    sys.stdout.write(json.dumps(told) + "\n")


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _keys_of(bundle: Path) -> tuple[str, ...]:
    from export.bundle import open_bundle

    return tuple(unit.key for unit in open_bundle(bundle).manifest.units)
