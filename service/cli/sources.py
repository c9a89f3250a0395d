"""Sources of spikes that need no laboratory, with their progress on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from service.signals import until_signalled
from streams.sessions.nwb.writer import write_session
from streams.sessions.replay.player import ReplayProgress, ReplaySummary, run_replay
from streams.sessions.session import Session
from streams.simulation.live import SubjectOptions, run_subject


def run_live(options: SubjectOptions) -> None:
    """Be the simulated subject, live on LSL, until a signal comes or its time is over.

    Raises:
        StreamsError: the options make no sense together.
    """
    note, decodes = Console(stderr=True), options.decodes
    how = f"watching the decodes of {decodes}" if decodes else "moving the cursor by hand"
    note.print(
        f"subject {options.subject_seed}, day {options.day}, {options.n_units} units as "
        f"{options.name!r} on LSL, {how}"
    )
    summary = run_subject(options, until_signalled())
    note.print(
        f"{summary.targets_acquired} targets acquired in {summary.engaged_s:.0f} s, "
        f"{summary.spikes_sent} spikes sent"
    )


def write_open_loop(session: Session, path: Path) -> None:
    """Write a session of the simulated subject to NWB.

    Raises:
        StreamsError: the file cannot be written.
    """
    write_session(session, path)
    Console(stderr=True).print(
        f"{path}: {session.id}, {len(session.spikes)} spikes of {len(session.unit_keys)} units "
        f"in {session.duration_s:.0f} s"
    )


def replay_with_progress(path: Path, **how: Any) -> ReplaySummary:
    """Stream a recording over LSL with a progress bar; `how` is that of `run_replay`.

    Raises:
        SessionError: see `run_replay`.
    """
    console = Console(stderr=True)
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(path.name, total=None)

        def on_progress(progress: ReplayProgress) -> None:
            done_s = progress.t_s - progress.start_s
            bar.update(task, total=progress.stop_s - progress.start_s, completed=done_s)

        return run_replay(
            path,
            on_waiting=lambda name: console.print(f"stream {name!r} is up, waiting for a listener"),
            on_progress=on_progress,
            is_stopped=until_signalled(),
            **how,
        )
