"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

DEFAULT_CONTROL = "tcp://127.0.0.1:5571"
DEFAULT_DECODE = "tcp://127.0.0.1:5570"


def opt(text: str, metavar: str | None = None, *names: str) -> Any:
    """Describe an option; its name is the parameter's where none is given."""
    return Option(*names, metavar=metavar, help=text)


def flag(name: str, text: str) -> Any:
    """Describe an option that is given or not, without its `--no-`."""
    return Option(name, help=text)


def arg(metavar: str, text: str) -> Any:
    """Describe an argument."""
    return Argument(metavar=metavar, help=text)


def bundle_folder(named: str) -> Path:
    """Return the folder of a bundle that is named on the command line, `shipped:NAME` too."""
    from export.shipped import bundle_path

    return bundle_path(named)


Command = Callable[..., int | None]
"""A function of options and arguments; it may return an exit code."""

Json = Annotated[bool, flag("--json", "Print JSON.")]
Config = Annotated[Path, arg("CONFIG.toml", "The config file.")]
Bundle = Annotated[
    Path,
    Argument(
        metavar="BUNDLE", help="Folder of the decoder, or shipped:demo.", parser=bundle_folder
    ),
]
Out = Annotated[Path, Option("--out", "-o", metavar="BUNDLE", help="Folder of the new bundle.")]
Control = Annotated[
    str, Option(help="The daemon's `[output] control`.", envvar="SPIKELOOP_CONTROL")
]
Decode = Annotated[str, Option(help="The daemon's `[output] decode`.", envvar="SPIKELOOP_DECODE")]
Keys = Annotated[Path | None, Option(help="File of the client's keys.", envvar="SPIKELOOP_KEYS")]
SignKey = Annotated[
    Path | None, Option("--sign-key", metavar="FILE", help="Sign the bundle with this key.")
]
Registry = Annotated[Path, opt("The registry of decoders.", "FOLDER")]
Name = Annotated[str, opt("Name of the LSL streams.")]
SessionsConfig = Annotated[
    Path | None,
    Option(
        "--sessions",
        metavar="CONFIG.toml",
        help="Its [sessions] says what is read (mask, units, trials); else as in training.",
    ),
]
Units = Annotated[int, opt("Number of units.")]
RateHz = Annotated[float, opt("Spikes per second and unit.")]
HopMs = Annotated[float, opt("Milliseconds between beats.")]
BlockMs = Annotated[float, opt("Length of the blocks that the sender pushes.")]
DelayMs = Annotated[float, opt("How much later the spikes leave.")]
UnitNumbers = Annotated[str, opt("Unit numbers, keys or labels to leave out.", "A,B,...")]
SECONDS_OF_RUN = "Seconds until it ends."


def listed(text: str) -> list[str]:
    """Parts of a list separated by commas."""
    return [one.strip() for one in text.split(",") if one.strip()]


def quieten_lsl() -> None:
    """Keep LSL's own log off the terminal; before LSL is used."""
    from streams.lsl.inlets import quieten

    quieten()
