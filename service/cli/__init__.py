"""The command `spikeloop`: what can be asked of it, and the exit code that it answers with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from service.cli import build, calibrate, falcon, lint, make, run, talk


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    from calibration.errors import CalibrationError
    from service.caches import provide_cache_folder
    from service.errors import HANDLED, ExitCode, exit_code

    provide_cache_folder()
    if getattr(arguments, "uses_lsl", False):
        from streams.lsl.inlets import quieten

        quieten()
    try:
        return int(arguments.run(arguments) or 0)
    except KeyboardInterrupt:
        return 0
    except HANDLED as err:
        sys.stderr.write(f"spikeloop: {err}\n")
        return int(exit_code(err))
    except CalibrationError as err:
        sys.stderr.write(f"spikeloop: {err}\n")
        return int(getattr(err, "code", ExitCode.USAGE))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spikeloop", description="Spikes in over LSL, decodes out over ZeroMQ."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in (run, talk, lint, make, calibrate, build, falcon):
        group.add_commands(commands)
    return parser
