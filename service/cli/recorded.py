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
    at: Annotated[int | None, opt("Show this decode with its tokens.", "SEQ")] = None,
    decoder: Annotated[
        str | None, opt("What if: decode with this one, and set it beside.", "BUNDLE")
    ] = None,
    figure: Annotated[Path | None, opt("With --decoder: draw both here.", "FILE.png")] = None,
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

    if decoder is not None:
        return _what_if(run, decoder, backend, figure, as_json=as_json)
    if at is not None:
        return _one(run, at, bundles or [], backend, as_json=as_json)
    from service.redecode.comparison import redecode as decode_again
    from service.redecode.told import summary

    found = decode_again(run, bundles or [], backend)
    sys.stdout.write(json.dumps(found.report) + "\n" if as_json else summary(found.report))
    return ExitCode.DONE if found.holds else ExitCode.BELOW_THRESHOLD


def _one(run: Path, seq: int, bundles: list[Path], backend: str, *, as_json: bool) -> int:
    from service.errors import ExitCode
    from service.redecode.one_decode import decode_at, lines_of

    told = decode_at(run, seq, bundles, backend)
    sys.stdout.write(json.dumps(told) + "\n" if as_json else lines_of(told))
    holds = told["same"] and not told["not_made_again"]
    return ExitCode.DONE if holds else ExitCode.BELOW_THRESHOLD


def _what_if(run: Path, decoder: str, backend: str, figure: Path | None, *, as_json: bool) -> int:
    if figure is not None:
        from service.bench.figure import require_matplotlib

        require_matplotlib()
    from service.redecode.what_if import draw, what_if

    report, sides = what_if(run, decoder, backend)
    if figure is not None:
        draw(figure, report, sides)
    sys.stdout.write(json.dumps(report, indent=None if as_json else 2) + "\n")
    return 0


COMMANDS: dict[str, Command] = {"redecode": redecode}
