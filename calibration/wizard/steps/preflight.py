"""Step 1: streams, clocks, channels, base decoder, daemon, disk; what is wrong, what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.choices import TargetSpec
from calibration.errors import CalibrationError, WizardError
from calibration.wizard.behavior import (
    behavior_advice,
    behavior_stream,
    continuous_targets,
    marker_advice,
    markers_shown,
    n_unknown,
)
from calibration.wizard.recording import (
    POLL_S,
    RecorderStatus,
    StreamStatus,
    builtin_cues,
    errors_as_told_here,
    newest_s,
    reading_of,
    recording_to,
)
from calibration.wizard.results import Finding, Level, PreflightResult
from calibration.wizard.run import CalibrationRun
from calibration.wizard.ui import NEXT, Choice, Page
from calibration.wizard.units import UnitScreening, screen_units, unit_rates_hz
from export.bundle import DecoderBundle, open_bundle
from export.errors import BundleError, SigningError
from export.signing.keys import public_of, read_signing_key
from streams.errors import StreamsError, UnreachableError
from streams.exit_codes import ExitCode
from streams.sessions.convert.convert import MENDED, session_of
from streams.sessions.convert.signals import marker_texts
from streams.sessions.session import Behavior, Session
from streams.sessions.xdf.loading import Recorded
from streams.sessions.xdf.reading import Recording, read_recording
from streams.wire.client import DaemonClient, StartingError

STEP = "preflight"
TITLE = "Is everything in place?"
# A morning's recordings and decoder stay well below.
FREE_BYTES = 500 * 2**20
# A quarter of the usual bin.
WORST_UNCERTAINTY_S = 0.005
SLOWEST_BEHAVIOR_HZ = 20.0
# Share of the decoder's units.
MANY = 0.2
MANY_UNKNOWN = 0.01
# What reading mends but the wizard tells elsewhere, or was asked for.
EXPECTED = ("brought no sample", "units to leave out", "are the times at which samples came")
# Stamps of streams that are read together may lie further apart than we listened, by so much.
SLACK_S = 60.0
NAMED_AT_MOST = 6
STARTING_MOST_S = 60.0
_MARKS = {"good": "[green]ok[/]", "warn": "[yellow]look[/]", "stop": "[bold red]stop[/]"}
VERDICTS: dict[Level, tuple[str, str]] = {  # the worst first
    "stop": ("Something must be mended first.", "bold red"),
    "warn": ("You can go on; have a look at what is marked.", "yellow"),
    "good": ("Everything is in place.", "green"),
}


def step(run: CalibrationRun) -> PreflightResult:
    """Look at everything; again, as often as the operator wants.

    Raises:
        WizardError: unattended, and something must be mended first.
    """
    while True:
        findings = _look(run)
        page = Page(STEP, TITLE, _body(findings), _line(findings))
        # The first stop gives the exit code: later ones often follow from it.
        stops = [one for one in findings if one.level == "stop"]
        if run.auto and stops:
            raise WizardError(" ".join(map(_sentence, stops)), stops[0].code)
        if stops:
            choices = (Choice("r", "look again"), Choice("o", "go on all the same"))
        else:
            choices = (NEXT, Choice("r", "look again"))
        if run.ui.ask(page, choices) != "r":
            return PreflightResult(findings=findings, overridden=bool(stops))


def _sentence(one: Finding) -> str:
    do = f" {one.do.rstrip('.')}." if one.do else ""
    return f"{one.what}: {one.found.rstrip('.')}.{do}"


def _look(run: CalibrationRun) -> list[Finding]:
    findings = [_disk(run), *_signing_key(run)]
    bundle = _base(run, findings)
    if run.daemon is not None:
        findings.append(_daemon(run, run.daemon, bundle))
    if bundle is not None:
        try:
            findings += _listen(run, bundle)
        except (WizardError, StreamsError) as err:
            code = err.code if isinstance(err, WizardError) else ExitCode.STREAM
            findings.append(Finding("stop", "streams", str(err), "", code))
    return findings


def _disk(run: CalibrationRun) -> Finding:
    free = shutil.disk_usage(run.folder).free
    found = f"{free / 2**30:.1f} GiB free in {run.folder}"
    if free < FREE_BYTES:
        return Finding("stop", "disk", found, "free at least 0.5 GiB, or choose another --folder")
    return Finding("good", "disk", found)


def _signing_key(run: CalibrationRun) -> list[Finding]:
    """Read the key that is to sign the decoder; nothing to say where none is."""
    if run.signing_key is None:
        return []
    try:
        public = public_of(read_signing_key(run.signing_key))
    except SigningError as err:
        return [Finding("stop", "signing key", str(err), "mend `key` under [sign]")]
    return [Finding("good", "signing key", public)]


def _base(run: CalibrationRun, findings: list[Finding]) -> DecoderBundle | None:
    try:
        bundle = open_bundle(run.base)
        targets = continuous_targets(bundle)
    except (BundleError, CalibrationError) as err:
        # So that another base may be named before the next look.
        run.progress.keep(base=None)
        findings.append(Finding("stop", "base decoder", str(err), "", ExitCode.BUNDLE))
        return None
    follows = ", ".join(f"{target.output} ({target.unit})" for target in targets)
    found = f"{bundle.manifest.name!r} of {bundle.manifest.session}, decodes {follows}"
    findings.append(Finding("good", "base decoder", found))
    return bundle


def _status(run: CalibrationRun, daemon: DaemonClient) -> dict[str, Any]:
    """Ask the daemon for its status; one that is starting is waited for."""
    t_end_s = run.clock.now() + STARTING_MOST_S
    while True:
        try:
            return daemon.ask("status")
        except StartingError:
            if run.clock.now() >= t_end_s:
                raise
        text = "waiting for the daemon, which is starting"
        run.show(Page(STEP, TITLE, Text(text), text), POLL_S)


def _daemon(run: CalibrationRun, daemon: DaemonClient, bundle: DecoderBundle | None) -> Finding:
    try:
        status = _status(run, daemon)
    except StreamsError as err:
        code = ExitCode.UNREACHABLE if isinstance(err, UnreachableError) else ExitCode.USAGE
        return Finding("stop", "daemon", str(err), 'or set `control = ""` under [deploy]', code)
    found = f"{status['decoder_id']!r} in service, validity {status['validity']}"
    if bundle is not None and abs(status["hop_ms"] * 1e-3 - bundle.manifest.hop_s) > 1e-9:
        found = f"its hop is {status['hop_ms']:g} ms, the base's {bundle.manifest.hop_s * 1e3:g}"
        return Finding(
            "stop", "daemon", found, "name the base that the daemon runs", ExitCode.BUNDLE
        )
    advised = status["health"]["recalibration_advised"]
    return Finding("good", "daemon", found + (", advises to calibrate" if advised else ""))


def _listen(run: CalibrationRun, bundle: DecoderBundle) -> list[Finding]:
    path, seconds = run.folder / "preflight.xdf", run.config.collect.check_s
    path.unlink(missing_ok=True)
    looking = Page(STEP, TITLE, Text("looking for the streams"), "looking for the streams")
    with (
        builtin_cues(run) as cues,
        recording_to(run, path, looking, cues.name if cues else "") as recorder,
    ):
        t_begin_s = run.clock.now()
        while (left_s := t_begin_s + seconds - run.clock.now()) > 0:
            recorder.check()
            if cues is not None:
                cues.show_for(POLL_S)
            text = f"listening to them for {seconds:g} s: {left_s:.0f} s left"
            page = Page(STEP, TITLE, Text(text), "listening to them")
            run.show(page, 0.0 if cues else POLL_S)
        status = recorder.status()
    return list(judge(run, bundle, read_recording(path), status))


def judge(
    run: CalibrationRun, bundle: DecoderBundle, recording: Recording, status: RecorderStatus
) -> Iterator[Finding]:
    """Judge a short recording.

    Args:
        run: the calibration.
        bundle: the base decoder.
        recording: some seconds.
        status: the recorder's account.
    """
    for name, one in status.streams.items():
        yield _clock(name, one)
    keys, heard_s = tuple(bundle.row_of_key), run.config.collect.check_s
    try:
        session = session_of(recording, reading_of(run.config, keys))
    except StreamsError as err:
        yield Finding("stop", "spikes", errors_as_told_here(err), "", ExitCode.STREAM)
        return
    # Nothing else can be judged then, and arrays of that length would be made.
    if session.duration_s > heard_s + SLACK_S:
        yield Finding(
            "stop", "clocks",
            f"the stamps of the streams lie {session.duration_s:,.0f} s apart, after {heard_s:g} s "
            "of listening: they are not all of LSL's clock",
            "`spikeloop lint` tells whose are not; let its program stamp with LSL's local_clock()",
            ExitCode.STREAM,
        )  # fmt: skip
        return
    for line in session.provenance.get(MENDED, "").splitlines():
        if not any(one in line for one in EXPECTED):
            do = "`spikeloop lint` tells what to change in the sender"
            yield Finding("warn", "samples", line.partition(": ")[2], do)
    yield from _units(screen_units(session, unit_rates_hz(bundle)), len(keys))
    yield from _behavior(session, bundle, recording, run)
    yield _markers(recording, run)


def _clock(name: str, stream: StreamStatus) -> Finding:
    offset_s, uncertainty_s = stream.clock_offset_s, stream.clock_uncertainty_s
    what = f"stream {name}"
    if offset_s is None or uncertainty_s is None:
        found = f"{stream.samples} samples; its clock could not be measured"
        do = "is the sender's machine busy, or a firewall between?"
        return Finding("warn", what, found, do)
    found = (
        f"{stream.type}, {stream.samples} samples; clock {offset_s * 1e3:+.2f} ms from ours, "
        f"known to {uncertainty_s * 1e3:.2f} ms"
    )
    if uncertainty_s > WORST_UNCERTAINTY_S:
        return Finding("warn", what, found, "use a wired network between the two machines")
    return Finding("good", what, found)


def _units(seen: UnitScreening, n_known: int) -> Iterator[Finding]:
    rates = np.array(list(seen.rates_hz.values()))
    n_alive = int(np.count_nonzero(rates))
    each_hz = rates.sum() / max(n_alive, 1)
    found = f"{n_alive} units fire, {rates.sum():.0f} spikes/s, {each_hz:.1f} each"
    yield Finding("good", "units", found)
    named = (
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
    for what, keys, do in named:
        if keys:
            are_many = do and len(keys) > MANY * max(n_known, 1)
            count = f"{len(keys)} of {n_known}, many" if are_many else str(len(keys))
            first = ", ".join(keys[:NAMED_AT_MOST]) + (" ..." if len(keys) > NAMED_AT_MOST else "")
            yield Finding("warn" if do else "good", what, f"{count}: {first}", do)


def _behavior(
    session: Session, bundle: DecoderBundle, recording: Recording, run: CalibrationRun
) -> Iterator[Finding]:
    config = run.config.behavior
    stream = behavior_stream(recording, config)
    for target in continuous_targets(bundle):
        what = f"behaviour for {target.output}"
        try:
            signal = session.signal(target.behavior)
        except StreamsError:
            trouble = stream.trouble if stream is not None else ""
            found = trouble or f"none of the channels is {target.behavior}"
            do = "" if trouble else behavior_advice(stream, target, config)
            yield Finding("stop", what, found, do, ExitCode.STREAM)
        else:
            yield _signal(what, signal, target)
    if stream is not None and len(stream):
        yield from _positions(stream)


def _signal(what: str, signal: Behavior, target: TargetSpec) -> Finding:
    rate_hz = (len(signal.t_s) - 1) / max(float(np.ptp(signal.t_s)), 1e-9)
    n_dims = signal.values.shape[1]
    found = f"{target.behavior}, {n_dims} dimensions in {signal.unit}, {rate_hz:.0f} Hz"
    if n_dims != target.dims:
        do = f"the decoder has {target.dims} dimensions: name the right stream"
        return Finding("stop", what, found, do, ExitCode.STREAM)
    # An unknown unit is the operator's word; a known one that differs is a mistake.
    if signal.unit not in (target.unit, "unknown", "unknown/s"):
        do = f"the decoder was trained in {target.unit}: send that unit"
        return Finding("stop", what, found, do, ExitCode.STREAM)
    if rate_hz < SLOWEST_BEHAVIOR_HZ:
        return Finding("warn", what, found, f"send it at {SLOWEST_BEHAVIOR_HZ:.0f} Hz or more")
    return Finding("good", what, found)


def _positions(stream: Recorded) -> Iterator[Finding]:
    """Tell what is worth knowing about the stream itself."""
    if n := n_unknown(stream.values):
        share = n / len(stream)
        found = f"{n} of {len(stream)} samples ({share:.1%}) hold NaN: they are left out"
        do = "why does the tracker lose what it follows?" if share > MANY_UNKNOWN else ""
        yield Finding("warn", "positions", found, do)
    if not any(stream.labels):
        found = f"{stream.description.n_channels} channels without labels, taken as x, y, z"
        yield Finding("warn", "positions", found, "label them, for example `cursor_x`")


def _markers(recording: Recording, run: CalibrationRun) -> Finding:
    config = run.config.markers
    markers = recording.of_type(config.type)
    if not len(markers):
        return Finding(
            "warn", "markers", "none came while we listened",
            "start the task, if it is not meant to wait for the next step",
        )  # fmt: skip
    texts = marker_texts(markers)
    if not any(text.startswith((config.trial_start, config.trial_stop)) for text in texts):
        return Finding("warn", "markers", markers_shown(texts), marker_advice(config, texts))
    age_s = newest_s(recording) - float(np.max(markers.t_s))
    return Finding("good", "markers", f"{len(texts)} came, the last {age_s:.1f} s ago")


def _body(findings: Sequence[Finding]) -> Group:
    table = Table(show_header=False, box=None, padding=(0, 1), expand=True)
    table.add_column(width=5)
    table.add_column(max_width=26)
    table.add_column(ratio=1)
    for one in findings:
        text = Text(one.found)
        if one.do:
            text.append(f"\n{one.do}", style="bold")
        table.add_row(Text.from_markup(_MARKS[one.level]), one.what, text)
    levels = {one.level for one in findings}
    worst = next(level for level in VERDICTS if level in levels)
    return Group(table, Text(), Text(*VERDICTS[worst]))


def _line(findings: Sequence[Finding]) -> str:
    worth = [f"{one.what}: {one.found}" for one in findings if one.level != "good"]
    return "; ".join(worth) or "everything is in place"
