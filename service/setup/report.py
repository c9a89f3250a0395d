"""`spikeloop doctor --report`: a file for bug reports, with nothing in it that tells who or what.

It leaves this machine by somebody's hand. So it holds versions, the machine, which choices of the
config are not the default, and what `doctor` found, with every name, path and address taken out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from service.bench.machine import describe
from service.config import ServeConfig
from service.errors import cannot_write
from streams.files import write_whole

LISTING = ("LSL streams seen", "units")
"""Findings that list what is there: streams, units."""
SPOKEN = (int, float, bool)
_SCRUBBED = (
    # A stream, first: its name, its source_id and its host have each their own form.
    (re.compile(r"'[^']*' \(type [^)]*\)"), "<stream>"),
    (re.compile(r"\bhost \S+"), "host <host>"),
    (re.compile(r"\b\w+://\S+"), "<address>"),
    (re.compile(r"\b\d+(?:\.\d+){3}\b"), "<address>"),
    (re.compile(r"(?<![\w<])~?(?:/[\w.@+ -]*[\w.@+-])+/?"), "<path>"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "<name>"),
    (re.compile(r"\b[0-9a-f]{12,}\b"), "<id>"),
    (re.compile(r"\b(?:ch\d+/u\d+|u\d+)\b"), "<unit>"),
)


class Found(Protocol):
    """One thing that `doctor` looked at."""

    @property
    def what(self) -> str:
        """Name of what was looked at."""

    @property
    def ok(self) -> bool:
        """True if it stops nothing."""

    @property
    def said(self) -> str:
        """Findings of the report."""


def write_report(path: Path, findings: Sequence[Found], config: ServeConfig | None) -> None:
    """Write the file.

    Args:
        path: where.
        findings: of `doctor`.
        config: the daemon's; None if none was named.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_whole(path, json.dumps(report(findings, config), indent=1) + "\n")
    except OSError as err:
        raise cannot_write(path, err) from err
    sys.stderr.write(
        f"{path} is written, for a bug report; it holds no names, paths, addresses, keys or data. "
        "Look at it before you send it\n"
    )


def report(findings: Sequence[Found], config: ServeConfig | None) -> dict[str, Any]:
    """Return what the file holds; see `write_report`."""
    return {
        "about": "made by `spikeloop doctor --report`: no names, paths, addresses, keys or data",
        "machine": describe(None) | {"platform": sys.platform},
        "changed_in_config": changed(config) if config else {},
        "findings": [
            {"what": scrubbed(one.what), "ok": one.ok, "said": _said(one)} for one in findings
        ],
    }


def changed(config: ServeConfig) -> dict[str, Any]:
    """Return the config's choices beside the defaults: numbers and names of ours, else `set`."""
    told: dict[str, Any] = {}
    for section, default in ServeConfig().model_dump(mode="json").items():
        for key, value in getattr(config, section).model_dump(mode="json").items():
            if value != default[key]:
                told[f"{section}.{key}"] = value if _is_ours(config, section, key) else "set"
    return told


def _is_ours(config: ServeConfig, section: str, key: str) -> bool:
    """Return True if the value is a number, or one of the words that the config knows."""
    value = getattr(getattr(config, section), key)
    annotation = str(type(getattr(config, section)).model_fields[key].annotation)
    is_backend = (section, key) in {("decoder", "backend"), ("decoder", "fallback")}
    return isinstance(value, SPOKEN) or "Literal" in annotation or is_backend


def _said(finding: Found) -> str:
    if finding.what in LISTING:
        return f"{finding.said.count('(type ')} streams" if finding.what == LISTING[0] else ""
    return scrubbed(finding.said)


def scrubbed(text: str) -> str:
    """Take names, paths, addresses and ids out of a text."""
    for pattern, instead in _SCRUBBED:
        text = pattern.sub(instead, text)
    return text
