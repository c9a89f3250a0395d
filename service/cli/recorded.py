"""Commands for recorded runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from service.cli.options import Command, Json, arg, opt

Run = Annotated[Path, arg("RUN", "Folder of the recorded run.")]


def redecode(
    run: Run,
    bundles: Annotated[
        list[Path] | None, opt("Where to look for bundles; may be given again.", "FOLDER")
    ] = None,
    backend: Annotated[str, opt("Runs all decoders; else what ran them.")] = "",
    as_json: Json = False,
) -> int:
    """Make a recorded run's decodes again and compare them.

    \b
    exit codes:
      0  every decode that was made again is what was said
      8  one differs, or none could be made again
      2  no recorded run there, or it cannot be read
      4  a bundle is refused
      5  a backend is not available
    """  # noqa: D301 - \b keeps the lines of a paragraph in the help
    from service.errors import ExitCode
    from service.redecode.comparison import redecode as decode_again
    from service.redecode.told import summary

    found = decode_again(run, bundles or [], backend)
    sys.stdout.write(json.dumps(found.report) + "\n" if as_json else summary(found.report))
    return ExitCode.DONE if found.holds else ExitCode.BELOW_THRESHOLD


COMMANDS: dict[str, Command] = {"redecode": redecode}
