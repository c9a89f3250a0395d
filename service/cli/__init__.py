"""The command `spikeloop`: what can be asked of it, and the exit code that it answers with."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from service.cli import bench, bridge, calibrate, falcon, make, page, recorded, registry, run, talk
from service.cli.options import Command

GROUPS = (run, recorded, talk, page, make, registry, calibrate, falcon)
SUBGROUPS = {"bench": bench, "bridge": bridge}
"""Commands of two words, by the first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        make_app()(args=None if argv is None else list(argv), prog_name="spikeloop")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"spikeloop {version('spikeloop')}\n")
        raise typer.Exit


def make_app() -> typer.Typer:
    """Every command, with its options."""
    app = _group(_before.__doc__)
    for group in GROUPS:
        for name, command in group.COMMANDS.items():
            app.command(name)(_answering(command))
    for group_name, sub in SUBGROUPS.items():
        under = _group(sub.__doc__)
        for name, command in sub.COMMANDS.items():
            under.command(name)(_answering(command))
        app.add_typer(under, name=group_name)
    app.callback()(_before)
    return app


def _before(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Spikes in over LSL, decodes out over ZeroMQ."""


def _group(about: str | None) -> typer.Typer:
    # Without rich: importing it would double the time to start.
    return typer.Typer(
        help=about, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )


def _answering(command: Command) -> Callable[..., None]:
    """Turn what a command returns, or fails with, into its exit code."""

    @functools.wraps(command)
    def answer(*args: Any, **kwargs: Any) -> None:
        from calibration.errors import CalibrationError
        from service.caches import provide_cache_folder
        from service.cli.lacking import lacking_extra
        from service.errors import HANDLED, ExitCode, exit_code

        provide_cache_folder()
        try:
            code = int(command(*args, **kwargs) or 0)
        except KeyboardInterrupt:
            code = 0
        except HANDLED as err:
            sys.stderr.write(f"spikeloop: {err}\n")
            code = int(exit_code(err))
        except CalibrationError as err:
            sys.stderr.write(f"spikeloop: {err}\n")
            code = int(getattr(err, "code", ExitCode.USAGE))
        except ModuleNotFoundError as err:
            lacking = lacking_extra(err)
            if lacking is None:
                raise
            sys.stderr.write(f"spikeloop: {lacking}\n")
            code = int(exit_code(lacking))
        raise typer.Exit(code)

    return answer
