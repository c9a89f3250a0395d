"""The sessions that a config names, read; what cannot be read is named."""

from __future__ import annotations

import fnmatch
import glob
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from decoders.config import Simulated, Split, TrainConfig
from decoders.errors import TrainingError
from streams.errors import LackingError, SessionError
from streams.sessions.reading import read_session
from streams.sessions.session import Session

Say = Callable[[str], None]


def say_on_stderr(text: str) -> None:
    """Write a line for the user, beside a command's output."""
    sys.stderr.write(f"{text}\n")


def read_sessions(
    config: TrainConfig, config_dir: Path, run_dir: Path, say: Say = say_on_stderr
) -> Iterator[Session]:
    """Read every session that a config names, each as the config chooses, one after the other.

    A whole file that lacks the behaviour, as a benchmark's test file does, is passed over and said;
    so is one that `[split] test_files` holds out.

    Args:
        config: names them.
        config_dir: globs are relative to it.
        run_dir: where simulated sessions lie.
        say: hears about files that are passed over or mended.

    Yields:
        Each as soon as it is read.

    Raises:
        TrainingError: after the last, if there are files that cannot be read, all of them named,
            or if there is no session.
    """
    lacking: list[str] = []
    broken: list[str] = []
    n_read = 0
    for path in session_paths(config, config_dir, run_dir):
        if is_held_out(config.split, path):
            say(f"held out by [split] test_files: {path}")
            continue
        try:
            session = read_session(path, config.session_choice)
        except LackingError as error:
            lacking.append(str(error))
            say(f"passed over: {error}")
        except SessionError as error:
            broken.append(str(error))
        else:
            say_notes([session], say, same_array=config.sessions.same_array)
            n_read += 1
            yield session
    if broken or not n_read:
        raise TrainingError(_cannot_be_used(broken, lacking, n_read))


def say_notes(sessions: Sequence[Session], say: Say, *, same_array: bool) -> None:
    """Report mended data, and keys that cannot name the same cell every day.

    Args:
        sessions: as read.
        say: told.
        same_array: unit keys are to name the same channel in every session.
    """
    for session in sessions:
        name = session.provenance.get("file", session.id)
        if session.provenance.get("skipped"):
            say(f"{name}: {session.provenance['skipped']}")
        if same_array and session.provenance.get("unit_keys") == "row numbers":
            say(
                f"warning: {name}: unit keys must name the same channel in every session here "
                "(same_array, or a decoder of another session), but this file's unit ids are only "
                "the table's row numbers, and a row is another cell after every sorting; name them "
                'by a column, [sessions] units.key = "electrodes", or learn or adapt without '
                "same_array"
            )


def is_held_out(split: str | Split, path: Path) -> bool:
    """Return True where a split by files holds this one out."""
    patterns = split.test_files if isinstance(split, Split) else ()
    return any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)


def _cannot_be_used(broken: Sequence[str], lacking: Sequence[str], n_read: int) -> str:
    told = [*broken, *lacking]
    if not told:
        return "[split] test_files holds every session out: nothing to learn from"
    if len(told) == 1 and not n_read:
        return told[0]
    n_files = n_read + len(told)
    lines = "\n".join(f"  {text}" for text in told)
    n_bad = len(broken) or len(lacking)
    return f"{n_bad} of {n_files} files cannot be used; mend them or leave them out:\n{lines}"


def session_paths(config: TrainConfig, config_dir: Path, run_dir: Path) -> list[Path]:
    """The NWB files that a config names; globs are relative to the config's directory."""
    paths: list[Path] = []
    for pattern in config.sessions.glob:
        found = sorted(glob.glob(str(config_dir / pattern), recursive=True))
        if not found:
            raise TrainingError(f"[sessions] glob {pattern!r} matches no file in {config_dir}")
        paths += [Path(path) for path in found]
    paths += [path for _, _, path in simulated_sessions(config.sessions.simulated, run_dir)]
    if not paths:
        raise TrainingError("[sessions] names no recording: give glob or simulated")
    return list(dict.fromkeys(paths))


def simulated_sessions(
    simulated: Simulated | None, run_dir: Path
) -> list[tuple[int, Literal["reach", "steer"], Path]]:
    """Day, style and file for each simulated session."""
    if simulated is None:
        return []
    return [
        (day, style, run_dir / "sessions" / f"day-{day:03d}-{style}.nwb")
        for day in simulated.days
        for style in simulated.styles
    ]
