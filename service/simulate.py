"""`spikeloop simulate` and `spikeloop replay`: sources of spikes that need no laboratory."""

from __future__ import annotations

import json
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType

from rich.console import Console
from rich.progress import Progress as Bar

from service.errors import ConfigError


def until_signalled() -> Callable[[], bool]:
    """True once SIGTERM or SIGINT came."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return lambda: bool(came)


def simulate(a: Namespace) -> None:
    """Be the simulated subject, live on LSL, or write one of its sessions to NWB.

    Raises:
        ConfigError: a number is impossible.
        StreamsError: the options make no sense together, or the file cannot be written.
    """
    if a.units < 1 or a.day < 0 or a.minutes <= 0:
        raise ConfigError("--units and --minutes must be above 0, and --day not below")
    if a.write is not None:
        _write(a)
        return
    from streams.simulation.live import SubjectOptions, run_subject

    options = SubjectOptions(
        subject_seed=a.subject,
        day=a.day,
        n_units=a.units,
        task=a.task,
        control="decoder" if a.decodes else "hand",
        decodes=a.decodes or "",
        shuffle_units=a.shuffle_units,
        name=a.name,
        seconds=a.seconds,
        seed=a.seed,
        delay_s=a.delay_ms * 1e-3,
        summary_path=a.summary,
    )
    note = Console(stderr=True)
    how = f"watching the decodes of {a.decodes}" if a.decodes else "moving the cursor by hand"
    note.print(f"subject {a.subject}, day {a.day}, {a.units} units as {a.name!r} on LSL, {how}")
    summary = run_subject(options, until_signalled())
    note.print(
        f"{summary.targets_acquired} targets acquired in {summary.engaged_s:.0f} s, "
        f"{summary.spikes_sent} spikes sent"
    )


def _write(a: Namespace) -> None:
    from streams.sessions.nwb.writer import write_session
    from streams.simulation.openloop import record_open_loop

    session = record_open_loop(a.subject, a.day, a.minutes, a.units, a.task, a.seed, a.style)
    write_session(session, a.write)
    Console(stderr=True).print(
        f"{a.write}: {session.id}, {len(session.spikes)} spikes of {len(session.unit_keys)} units "
        f"in {session.duration_s:.0f} s"
    )


def replay(a: Namespace) -> None:
    """Stream a recording over LSL, with a progress bar; prints what was sent.

    Raises:
        SessionError: see `run_replay`.
        ConfigError: what is to be read cannot be understood.
    """
    from decoders.config import load_sessions
    from streams.sessions.choice import EVERYTHING
    from streams.sessions.replay.player import ReplayProgress, run_replay

    choice = load_sessions(a.sessions).choice(None) if a.sessions else EVERYTHING
    console = Console(stderr=True)
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(str(a.file.name), total=None)

        def on_progress(progress: ReplayProgress) -> None:
            done_s = progress.t_s - progress.start_s
            bar.update(task, total=progress.stop_s - progress.start_s, completed=done_s)

        summary = run_replay(
            a.file,
            speed=a.speed,
            start_s=a.start,
            stop_s=a.stop,
            counts_ms=a.counts_ms,
            name=a.name or "",
            block_ms=a.block_ms,
            wait_s=a.wait,
            on_waiting=lambda name: console.print(f"stream {name!r} is up, waiting for a listener"),
            on_progress=on_progress,
            is_stopped=until_signalled(),
            choice=choice,
        )
    if a.json:
        sys.stdout.write(json.dumps(asdict(summary)) + "\n")
    else:
        console.print(
            f"{summary.n_spikes} spikes of {summary.n_units} units sent as {summary.name!r}, "
            f"{summary.start_s:g} to {summary.stop_s:g} s of the recording"
        )
