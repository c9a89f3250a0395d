"""Step 1: streams, clocks, channels, base decoder, daemon, disk; what is wrong, what to do."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.errors import CalibrationError
from calibration.wizard.aims import Aim, aims_of, rates_of
from calibration.wizard.behavior import stream_of, unknown_samples, what_to_change
from calibration.wizard.channels import Channels, look_at_channels
from calibration.wizard.cues import Cues, cues_of
from calibration.wizard.daemon import Daemon
from calibration.wizard.errors import BUNDLE, STREAM, USAGE, WizardError, as_told_here
from calibration.wizard.face import NEXT, Choice, Page
from calibration.wizard.marking import how_trials_are_marked, shown
from calibration.wizard.recorder import Recorder, newest_s, reading_of, wanted
from calibration.wizard.run import Run
from export.bundle import DecoderBundle, open_bundle
from export.errors import BundleError
from streams.errors import StreamsError
from streams.sessions.convert.convert import MENDED, session_of
from streams.sessions.convert.markers import marker_texts
from streams.sessions.session import Behavior, Session
from streams.sessions.xdf.reading import Recorded, Recording, read_recording

STEP = "preflight"
FREE_BYTES = 500 * 2**20
WORST_UNCERTAINTY_S = 0.005
MANY = 0.2
MANY_UNKNOWN = 0.01
EXPECTED = ("brought no sample", "units to leave out", "are the times at which samples came")
SLACK_S = 60.0
"""Stamps of streams that are read together may lie further apart than we listened, by so much."""
NAMED_AT_MOST = 6
Level = Literal["good", "warn", "stop"]
_MARKS = {"good": "[green]ok[/]", "warn": "[yellow]look[/]", "stop": "[bold red]stop[/]"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: whether it is well, wants a look, or must be mended first.
        what: it is.
        found: what was found.
        do: what to do about it, "" where nothing.
        code: exit code where it stops an unattended run.
    """

    level: Level
    what: str
    found: str
    do: str = ""
    code: int = USAGE


def run(held: Run) -> dict[str, Any]:
    """Look at everything; again, as often as the operator wants.

    Raises:
        WizardError: unattended, and something must be mended first.
    """
    while True:
        findings = _look(held)
        page = Page(STEP, "Is everything in place?", _body(findings), _line(findings))
        stops = [one for one in findings if one.level == "stop"]
        if held.auto and stops:
            raise WizardError(" ".join(map(_sentence, stops)), stops[0].code)
        if stops:
            choices = (Choice("r", "look again"), Choice("o", "go on all the same"))
        else:
            choices = (NEXT, Choice("r", "look again"))
        chosen = held.face.ask(page, choices)
        if chosen == "r":
            continue
        return {"findings": [asdict(one) for one in findings], "overridden": bool(stops)}


def _sentence(one: Finding) -> str:
    do = f" {one.do.rstrip('.')}." if one.do else ""
    return f"{one.what}: {one.found.rstrip('.')}.{do}"


def _look(held: Run) -> list[Finding]:
    findings = [_disk(held)]
    bundle = _base(held, findings)
    if held.config.deploy.control:
        findings.append(_daemon(held, bundle))
    if bundle is not None:
        findings += _streams(held, bundle)
    return findings


def _disk(held: Run) -> Finding:
    free = shutil.disk_usage(held.folder).free
    told = f"{free / 2**30:.1f} GiB free in {held.folder}"
    if free < FREE_BYTES:
        return Finding("stop", "disk", told, "free at least 0.5 GiB, or choose another --folder")
    return Finding("good", "disk", told)


def _base(held: Run, findings: list[Finding]) -> DecoderBundle | None:
    try:
        bundle = open_bundle(held.base)
        aims = aims_of(bundle)
    except (BundleError, CalibrationError) as err:
        held.progress.keep("base", None)
        findings.append(Finding("stop", "base decoder", str(err), "", BUNDLE))
        return None
    follows = ", ".join(f"{aim.output} ({aim.unit})" for aim in aims)
    told = f"{bundle.manifest.name!r} of {bundle.manifest.session}, decodes {follows}"
    findings.append(Finding("good", "base decoder", told))
    return bundle


def _daemon(held: Run, bundle: DecoderBundle | None) -> Finding:
    deploy = held.config.deploy
    try:
        status = Daemon(deploy.control, deploy.keys).ask("status")
    except WizardError as err:
        do = 'or set `control = ""` under [deploy]'
        return Finding("stop", "daemon", str(err), do, err.code)
    told = f"{status['decoder_id']!r} in service, validity {status['validity']}"
    if bundle is not None and abs(status["hop_ms"] * 1e-3 - bundle.manifest.hop_s) > 1e-9:
        told = f"its hop is {status['hop_ms']:g} ms, the base's {bundle.manifest.hop_s * 1e3:g}"
        return Finding("stop", "daemon", told, "name the base that the daemon runs", BUNDLE)
    advised = status["health"]["recalibration_advised"]
    return Finding("good", "daemon", told + (", advises to calibrate" if advised else ""))


def _streams(held: Run, bundle: DecoderBundle) -> list[Finding]:
    cues: Cues | None = None
    try:
        if held.config.cues.builtin:
            cues = cues_of(held)
        return _listen(held, bundle, cues)
    except (WizardError, StreamsError) as err:
        return [Finding("stop", "streams", str(err), "", getattr(err, "code", STREAM))]
    finally:
        if cues is not None:
            cues.close()


def _listen(held: Run, bundle: DecoderBundle, cues: Cues | None) -> list[Finding]:
    path = held.folder / "preflight.xdf"
    path.unlink(missing_ok=True)
    recorder = Recorder(held, path, wanted(held.config, cues.name if cues else ""))
    seconds = held.config.collect.check_s
    try:
        while not recorder.is_recording:
            _wait(held, "looking for the streams", cues)
        t_begin_s = held.clock.now()
        while (left_s := t_begin_s + seconds - held.clock.now()) > 0:
            recorder.check()
            _wait(held, f"listening to them for {seconds:g} s: {max(0.0, left_s):.0f} s left", cues)
        status = recorder.status()
    finally:
        recorder.stop()
    try:
        recording = read_recording(path)
    except StreamsError as err:
        return [Finding("stop", "streams", str(err), "", STREAM)]
    return judge(held, bundle, recording, status)


def _wait(held: Run, what: str, cues: Cues | None) -> None:
    if cues is not None:
        cues.show_for(0.2)
    page = Page(STEP, "Is everything in place?", Text(what), what.partition(" for ")[0])
    held.face.ask(page, (), wait_s=0.0 if cues else 0.2)


def judge(
    held: Run, bundle: DecoderBundle, recording: Recording, status: dict[str, Any]
) -> list[Finding]:
    """What some seconds of the streams tell.

    Args:
        held: the calibration.
        bundle: the base decoder.
        recording: of the streams.
        status: the recorder's account.
    """
    findings = [_clock(name, one) for name, one in status["streams"].items()]
    keys = tuple(unit.key for unit in bundle.manifest.units)
    try:
        session = session_of(recording, reading_of(held.config, keys))
    except StreamsError as err:
        return [*findings, Finding("stop", "spikes", as_told_here(err), "", STREAM)]
    if apart := _apart(session, held.config.collect.check_s):
        return [*findings, apart]
    findings += _mended(session)
    findings += _units(look_at_channels(session, rates_of(bundle)), len(keys))
    findings += _behavior(session, bundle, recording, held)
    findings.append(_markers(recording, held))
    return findings


def _mended(session: Session) -> list[Finding]:
    """What was dropped or mended on reading; what was meant, or is told elsewhere, left out."""
    lines = session.provenance.get(MENDED, "").splitlines()
    said = [line.partition(": ")[2] for line in lines if not any(one in line for one in EXPECTED)]
    do = "`spikeloop lint` tells what to change in the sender"
    return [Finding("warn", "samples", line, do) for line in said]


def _apart(session: Session, heard_s: float) -> Finding | None:
    """Whether the streams' stamps lie further apart than we have listened."""
    if session.duration_s <= heard_s + SLACK_S:
        return None
    return Finding(
        "stop", "clocks",
        f"the stamps of the streams lie {session.duration_s:,.0f} s apart, after {heard_s:g} s of "
        "listening: they are not all of LSL's clock",
        "`spikeloop lint` tells whose are not; let its program stamp with LSL's local_clock()",
        STREAM,
    )  # fmt: skip


def _clock(name: str, one: dict[str, Any]) -> Finding:
    offset_s, uncertainty_s = one["clock_offset_s"], one["clock_uncertainty_s"]
    what = f"stream {name}"
    if offset_s is None:
        return Finding(
            "warn", what, f"{one['samples']} samples; its clock could not be measured",
            "is the sender's machine busy, or a firewall between?",
        )  # fmt: skip
    told = (
        f"{one['type']}, {one['samples']} samples; clock {offset_s * 1e3:+.2f} ms from ours, "
        f"known to {uncertainty_s * 1e3:.2f} ms"
    )
    if uncertainty_s > WORST_UNCERTAINTY_S:
        return Finding("warn", what, told, "use a wired network between the two machines")
    return Finding("good", what, told)


def _units(seen: Channels, n_known: int) -> list[Finding]:
    rates = np.array(list(seen.rates_hz.values()))
    n_alive = int(np.count_nonzero(rates))
    each_hz = rates.sum() / max(n_alive, 1)
    told = f"{n_alive} units fire, {rates.sum():.0f} spikes/s, {each_hz:.1f} each"
    findings = [Finding("good", "units", told)]
    judged = (
        ("silent units", seen.dead, "are those channels connected and their thresholds set?"),
        ("bursting units", seen.bursting, "movement or electrical noise? look at the amplifier"),
        ("noise, not neurons", seen.noisy, "raise the thresholds of these channels"),
        ("units new to the decoder", seen.unknown, ""),
        (
            "units that fire as one",
            [f"{a} = {b}" for a, b in seen.duplicated],
            "a short circuit, or one unit on two channels: switch one off",
        ),
    )
    for what, keys, do in judged:
        if keys:
            named = ", ".join(keys[:NAMED_AT_MOST]) + (" ..." if len(keys) > NAMED_AT_MOST else "")
            worrying = do and len(keys) > MANY * max(n_known, 1)
            findings.append(
                Finding("warn" if do else "good", what, f"{len(keys)}: {named}", do if do else "")
                if not worrying
                else Finding("warn", what, f"{len(keys)} of {n_known}, many: {named}", do)
            )
    return findings


def _behavior(
    session: Session, bundle: DecoderBundle, recording: Recording, held: Run
) -> list[Finding]:
    config = held.config.behavior
    stream = stream_of(recording, config)
    findings = []
    for aim in aims_of(bundle):
        what = f"behaviour for {aim.output}"
        try:
            signal = session.signal(aim.behavior)
        except StreamsError:
            trouble = stream.trouble if stream is not None else ""
            found = trouble or f"none of the channels is {aim.behavior}"
            do = "" if trouble else what_to_change(stream, aim, config)
            findings.append(Finding("stop", what, found, do, STREAM))
            continue
        findings.append(_signal(what, signal, aim))
    if stream is not None and len(stream):
        findings += _positions(stream)
    return findings


def _signal(what: str, signal: Behavior, aim: Aim) -> Finding:
    rate_hz = (len(signal.t_s) - 1) / max(float(np.ptp(signal.t_s)), 1e-9)
    n_dims = signal.values.shape[1]
    told = f"{aim.behavior}, {n_dims} dimensions in {signal.unit}, {rate_hz:.0f} Hz"
    if n_dims != aim.dims:
        do = f"the decoder has {aim.dims} dimensions: name the right stream"
        return Finding("stop", what, told, do, STREAM)
    if signal.unit not in (aim.unit, "unknown", "unknown/s"):
        do = f"the decoder was trained in {aim.unit}: send that unit"
        return Finding("stop", what, told, do, STREAM)
    if rate_hz < 20.0:
        return Finding("warn", what, told, "send it at 20 Hz or more")
    return Finding("good", what, told)


def _positions(stream: Recorded) -> list[Finding]:
    """What is worth knowing of the stream of behaviour itself."""
    findings = []
    n_unknown, n = unknown_samples(stream)
    if n_unknown:
        told = f"{n_unknown} of {n} samples ({n_unknown / n:.1%}) hold NaN: they are left out"
        do = "why does the tracker lose what it follows?" if n_unknown > MANY_UNKNOWN * n else ""
        findings.append(Finding("warn", "positions", told, do))
    if not any(stream.labels):
        told = f"{stream.description.n_channels} channels without labels, taken as x, y, z"
        findings.append(Finding("warn", "positions", told, "label them, for example `cursor_x`"))
    return findings


def _markers(recording: Recording, held: Run) -> Finding:
    config = held.config.markers
    markers = recording.of_type(config.type)
    if not len(markers):
        return Finding(
            "warn", "markers", "none came while we listened",
            "start the task, if it is not meant to wait for the next step",
        )  # fmt: skip
    texts = marker_texts(markers)
    if not any(text.startswith((config.trial_start, config.trial_stop)) for text in texts):
        return Finding("warn", "markers", shown(texts), how_trials_are_marked(config, texts))
    age_s = newest_s(recording) - float(np.max(markers.t_s))
    return Finding("good", "markers", f"{len(texts)} came, the last {age_s:.1f} s ago")


def _body(findings: list[Finding]) -> Group:
    table = Table(show_header=False, box=None, padding=(0, 1), expand=True)
    table.add_column(width=5)
    table.add_column(max_width=26)
    table.add_column(ratio=1)
    for one in findings:
        told = Text(one.found)
        if one.do:
            told.append(f"\n{one.do}", style="bold")
        table.add_row(Text.from_markup(_MARKS[one.level]), one.what, told)
    return Group(table, Text(), _verdict(findings))


def _verdict(findings: list[Finding]) -> Text:
    levels = [one.level for one in findings]
    if "stop" in levels:
        return Text("Something must be mended first.", style="bold red")
    if "warn" in levels:
        return Text("You can go on; have a look at what is marked.", style="yellow")
    return Text("Everything is in place.", style="green")


def _line(findings: list[Finding]) -> str:
    worth = [f"{one.what}: {one.found}" for one in findings if one.level != "good"]
    return "; ".join(worth) or "everything is in place"
