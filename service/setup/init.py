"""`spikeloop init`: five questions, and the config that answers them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.prompt import Prompt

from export.bundle import open_bundle
from export.errors import BundleError
from export.shipped import SHIPPED, bundle_path
from service.config import ServeConfig, load_config
from service.errors import ConfigError, cannot_write
from service.setup.lint import listen_to_all
from streams.errors import StreamAbsentError
from streams.lint.findings import LEVELS, Heard, Report
from streams.lint.judge import lint
from streams.lint.listener import Listener
from streams.lsl.inlets import matching_streams, visible_streams
from streams.wire.endpoints import HIGHEST_PORT, parse_endpoint

TEMPLATE = Path(__file__).parents[2] / "configs" / "serve.toml"
SIMULATED = "simulated"
OWN = "bundles/current"
Values = dict[tuple[str, str], object]
"""What the config is to say, by section and key."""
Ask = Callable[[str, str], str]
"""Asks a question, given what is taken where nothing is answered."""


@dataclass(frozen=True, slots=True)
class Given:
    """Answers from the command line; None where the question is still to be asked.

    Attributes:
        stream: name of the LSL stream, or `simulated`.
        columns: names of its channels, separated by commas; "" for its labels.
        decoder: folder of a bundle, or `shipped:demo`.
        hop_ms: between decodes.
        decode: address at which decodes leave.
    """

    stream: str | None = None
    columns: str | None = None
    decoder: str | None = None
    hop_ms: float | None = None
    decode: str | None = None


def init(path: Path, given: Given, *, seconds: float, force: bool, ask: Ask | None) -> int:
    """Ask what is not given, write the config, and say what comes next.

    Args:
        path: the config to be written.
        given: answers that are there already.
        seconds: how long to listen to streams.
        force: write over a file that is there.
        ask: asks a person; None to take what fits best.

    Raises:
        ConfigError: an answer cannot be used, or the file is there.
        StreamAbsentError: no stream of spikes answers, and nobody can be asked.
    """
    if path.exists() and not force:
        raise ConfigError(
            f"{path} is there already; name another file, or write over it by --force"
        )
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    found = [] if given.stream == SIMULATED else _listen(seconds, say)
    chosen = _stream(given.stream, found, ask)
    columns: list[str] = []
    if chosen is not None:
        chosen, columns = _columns(chosen, given.columns, ask)
    values = _input(chosen, columns)
    bundle, hop_ms = _decoder(given.decoder, given.hop_ms, ask)
    values |= {("decoder", "bundle"): bundle, ("beat", "hop_ms"): hop_ms}
    values |= _output(given.decode, ask)
    text = filled(TEMPLATE.read_text(), path, values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as err:
        raise cannot_write(path, err) from err
    load_config(path, ServeConfig)
    sys.stdout.write(_next_steps(path, chosen))
    return 0


def prompt(question: str, default: str) -> str:
    """Ask a person at the terminal."""
    return Prompt.ask(question, default=default, console=Console(stderr=True))


def filled(template: str, path: Path, values: Values) -> str:
    """Return the config's text with other values; its comments stay.

    Args:
        template: `configs/serve.toml`.
        path: named in the first line.
        values: by section and key.
    """
    section, lines, left = "", [], dict(values)
    for line in template.splitlines():
        if head := re.match(r"\[(\w+)\]", line):
            section = head[1]
        key = re.match(r"(?:# )?(\w+) = ", line)
        if key and (section, key[1]) in left:
            written = f"{key[1]} = {json.dumps(left.pop((section, key[1])))}"
            comment = re.search(r"\s{2,}# .*$", line)
            # What the template says of its own departures holds for the template alone.
            told = re.sub(r"; default: .*$", "", comment[0].strip()) if comment else ""
            line = f"{written:<30} {told}".rstrip()
        lines.append(line)
    about = [f"# spikeloop serve {path}", "#"]
    about += [
        "# Written by `spikeloop init`. Every key with its comment; an unknown key is refused."
    ]
    begin = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join([*about, *lines[begin:]]) + "\n"


class Found(NamedTuple):
    """A stream that was listened to, and what `spikeloop lint` says of it."""

    report: Report
    heard: Heard

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.report.stream.name


def _listen(seconds: float, say: Callable[..., None]) -> list[Found]:
    """Listen to the streams there are; return the soundest first."""
    say(f"looking for LSL streams, then listening for {seconds:g} s ...")
    try:
        infos = matching_streams()
    except StreamAbsentError:
        return []
    visible = visible_streams(0.5)
    heard = listen_to_all([Listener(info, seconds) for info in infos])
    found = [Found(lint(one, visible), one) for one in heard]
    for report, _ in filter(_is_of_spikes, found):
        say(f"  {report.stream.name}: {report.kind}, {report.n_samples / seconds:.0f} samples/s")
        for one in report.findings:
            if one.level != "good":
                say(f"    {one.level}: {one.what}: {one.found}. {one.change}")
    return sorted(found, key=lambda one: (LEVELS.index(one.report.worst), one.name))


def _is_of_spikes(found: Found) -> bool:
    return found.report.kind in ("spikes", "counts")


def _stream(given: str | None, found: Sequence[Found], ask: Ask | None) -> Found | None:
    """Choose the stream; None for the simulated subject."""
    names = [one.name for one in found if _is_of_spikes(one)]
    if given is None and ask is None and len(names) != 1:
        if names:
            raise ConfigError(
                f"{len(names)} streams of spikes: {', '.join(names)}; name one by --stream"
            )
        raise StreamAbsentError(
            "no LSL stream of spikes answered: start its sender, or write a config for the "
            f"simulated subject by --stream {SIMULATED}"
        )
    default = names[0] if names else SIMULATED
    there = ", ".join([*names, SIMULATED])
    if given is None:
        given = ask(f"1/5 Stream of spikes ({there})", default) if ask else default
    if given == SIMULATED:
        return None
    # By its name also one whose type and labels do not say that it carries spikes.
    called = [one for one in found if one.name == given]
    if not called:
        raise StreamAbsentError(f"no LSL stream is called {given!r}; of spikes there are: {there}")
    if len(called) > 1:
        raise ConfigError(
            f"{len(called)} streams are called {given!r}: stop one, or set `hostname` or "
            "`source_id` under [input] by hand"
        )
    return called[0]


def _columns(found: Found, given: str | None, ask: Ask | None) -> tuple[Found, list[str]]:
    """Settle how the channels are read; what `lint` says then."""
    untold = _unfit(found.report) or not _is_of_spikes(found)
    if given is None and ask is not None:
        how = "its labels do not tell" if untold else "leave it empty to go by its labels"
        given = ask(f"2/5 Names of its {found.report.stream.n_channels} channels; {how}", "")
    columns = [one.strip() for one in (given or "").split(",") if one.strip()]
    found = Found(lint(found.heard, (), "spikes", columns), found.heard) if columns else found
    if why := _unfit(found.report):
        raise ConfigError(f"{why} Name its channels, as --columns channel,unit,seq does")
    return found, columns


def _unfit(report: Report) -> str:
    return next((one.found for one in report.findings if one.is_unfit), "")


def _input(found: Found | None, columns: list[str]) -> Values:
    """Say how the stream is found and read."""
    if found is None:
        return {("input", "simulate_if_absent"): True}
    stream, measured = found.report.stream, found.report.as_json()["measured"]
    return {
        ("input", "type"): stream.type,
        ("input", "name"): stream.name,
        ("input", "columns"): columns,
        ("input", "stamps"): "arrival" if "other_clock_by_s" in measured else "lsl",
        ("input", "simulate_if_absent"): False,
    }


def _decoder(given: str | None, hop_ms: float | None, ask: Ask | None) -> tuple[str, float]:
    """Choose the bundle, and its hop."""
    default = OWN if Path(OWN).exists() else f"{SHIPPED}demo"
    if given is None:
        given = ask("3/5 Decoder: a bundle's folder, or shipped:demo", default) if ask else default
    try:
        made_for_ms = open_bundle(bundle_path(given)).manifest.hop_s * 1e3
    except BundleError as err:
        # It may be trained later; what is there must be sound.
        if bundle_path(given).exists():
            raise
        if given.startswith(SHIPPED):
            raise ConfigError(f"{err}") from err
        made_for_ms = 20.0
    if hop_ms is None and ask is not None:
        hop_ms = _number(ask("4/5 Milliseconds between decodes", f"{made_for_ms:g}"))
    hop_ms = made_for_ms if hop_ms is None else hop_ms
    if bundle_path(given).exists() and abs(hop_ms - made_for_ms) > 1e-6:
        raise ConfigError(f"{given} was made for a hop of {made_for_ms:g} ms, not {hop_ms:g}")
    return given, int(hop_ms) if hop_ms == int(hop_ms) else hop_ms


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no number of milliseconds") from None


def _output(given: str | None, ask: Ask | None) -> Values:
    """Say where decodes leave; commands come in at the next port."""
    default = ServeConfig().output.decode
    if given is None:
        given = ask("5/5 Address for decodes (ZeroMQ)", default) if ask else default
    endpoint = parse_endpoint(given)
    if not endpoint.is_loopback:
        raise ConfigError(
            f"{given} is open to other machines, which needs keys: take {default} now, and see "
            "docs/security.md, then set `decode`, `control` and `keys` under [output]"
        )
    free = endpoint.port == "*" or int(endpoint.port) == HIGHEST_PORT
    next_port = "*" if free else str(int(endpoint.port) + 1)
    control = f"{given.rpartition(':')[0]}:{next_port}"
    return {("output", "decode"): given, ("output", "control"): control}


def _next_steps(path: Path, chosen: Found | None) -> str:
    lines = [f"{path} is written. Next:", f"  spikeloop doctor {path}   # what would stop it"]
    lines += [f"  spikeloop serve {path}    # decode; in another terminal: spikeloop watch"]
    if chosen is None:
        lines += [
            "It decodes a SIMULATED subject while no stream answers. For a person's, start its "
            "sender and run `spikeloop init --force` again."
        ]
    elif chosen.report.worst == "stop":
        lines += ["Its decodes will not be `ok` before the findings marked `stop` are mended."]
    return "\n".join(lines) + "\n"
