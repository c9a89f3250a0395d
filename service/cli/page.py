"""The command that shows a daemon to people, and the flag with which others start it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from service.cli.options import DEFAULT_CONTROL, Command, Keys, flag, opt, quieten_lsl

Page = Annotated[bool, flag("--page", "Show it on a page in the browser; its address is printed.")]


def page(
    decode: Annotated[str, opt("The daemon's `[output] decode`; else the daemon is asked.")] = "",
    control: Annotated[str, opt(f"Its `[output] control`; {DEFAULT_CONTROL} if neither.")] = "",
    keys: Keys = None,
    config: Annotated[Path | None, opt("The daemon's config.", "CONFIG.toml")] = None,
    announced: Annotated[
        Path | None, opt("Wait for the addresses that `serve --announce` writes here.", "FILE")
    ] = None,
    run: Annotated[Path | None, opt("Show a recorded run, with a time bar.", "RECORDING")] = None,
    bundle: Annotated[str, opt("The decoder, for what it knows of units.")] = "",
    position: Annotated[str, opt("LSL stream of positions; else the one beside.", "NAME")] = "",
    markers: Annotated[str, opt("LSL stream of markers; else the one beside.", "NAME")] = "",
    bind: Annotated[
        str, opt("Where to serve, port 0 is any; 127.0.0.1:5580 or any port.", "HOST:PORT")
    ] = "",
    token: Annotated[
        Path | None, opt("Allow commands to who has the token in it; made if absent.", "FILE")
    ] = None,
    origin: Annotated[
        list[str] | None, opt("Where a proxy shows it; may be given again.", "URL")
    ] = None,
    announce: Annotated[Path | None, opt("Write the page's address to this file (JSON).")] = None,
    until_stdin_ends: Annotated[
        bool, flag("--until-stdin-ends", "End with the program that started it.")
    ] = False,
) -> None:
    """Show a daemon or a recorded run in the browser: validity, spikes, decodes, latency, units."""
    quieten_lsl()
    require_bokeh()
    from export.shipped import bundle_path
    from service.config import ServeConfig, load_config
    from service.page.options import PageOptions, with_config
    from service.page.show import show

    is_stopped = _until_ended(until_stdin_ends)
    if announced is not None:
        decode, control = _wait_for(announced, is_stopped)
    options = PageOptions(
        decode=decode,
        control=control,
        keys=keys,
        run=run,
        bundle=bundle_path(bundle) if bundle else None,
        position=position,
        markers=markers,
        bind=bind,
        token=token,
        origins=origin or (),
    )
    if config is not None:
        options = with_config(options, load_config(config, ServeConfig))
    if not options.decode and not options.control and run is None:
        options = replace(options, control=DEFAULT_CONTROL)
    show(options, announce, is_stopped)


def _until_ended(stdin_too: bool) -> Callable[[], bool]:
    """Return a function that is True once a signal came, or the standard input ended."""
    from service.signals import until_signalled
    from streams.clock import wait_readable

    is_signalled = until_signalled()

    def is_stopped() -> bool:
        if stdin_too and wait_readable(0, 0.0) and not os.read(0, 1024):
            return True
        return is_signalled()

    return is_stopped


def _wait_for(announced: Path, is_stopped: Callable[[], bool]) -> tuple[str, str]:
    """Wait for a daemon's addresses: (decode, control); empty once we are to end."""
    from streams.clock import MonotonicClock

    clock = MonotonicClock()
    while not is_stopped():
        if announced.exists():
            told = json.loads(announced.read_text())
            return told["decode"], told["control"]
        clock.sleep_until(clock.now() + 0.05)
    return "", ""


def require_bokeh() -> None:
    """Raise unless what draws the page is installed.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("bokeh") is None:
        from service.errors import ConfigError

        raise ConfigError("the page needs Bokeh: pip install 'spikeloop[page]'")


@contextmanager
def page_beside(*arguments: str) -> Iterator[None]:
    """Run `spikeloop page ARGUMENTS` as a process of its own; it ends with us.

    Raises:
        ConfigError: Bokeh is not installed.
    """
    require_bokeh()
    command = [sys.executable, "-m", "service.cli", "page", "--until-stdin-ends", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def page_of_daemon(config: Path, announce: Path | None) -> Iterator[Path]:
    """Run the page of a daemon that is about to start; yields where that announces itself.

    Args:
        config: the daemon's.
        announce: the file that it was told to announce itself in; None for one of ours.
    """
    with tempfile.TemporaryDirectory(prefix="spikeloop-page-") as folder:
        announced = announce or Path(folder) / "daemon.json"
        announced.unlink(missing_ok=True)  # of a run before
        with page_beside("--config", str(config), "--announced", str(announced)):
            yield announced


COMMANDS: dict[str, Command] = {"page": page}
