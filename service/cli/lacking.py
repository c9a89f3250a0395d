"""The extra that a missing package belongs to."""

from __future__ import annotations

import re
from importlib.metadata import requires

from service.errors import ConfigError

_FIRST = ("train", "nwb", "cpu", "tune")
"""Extras in the order in which they are proposed: what needs one package of `train` needs more."""
_EXTRA = re.compile(r"^([\w.-]+).*;.*\bextra == ['\"](\w+)['\"]")


def lacking_extra(err: ModuleNotFoundError) -> ConfigError | None:
    """Return the error that names the extra to install, None for a module of no extra.

    Args:
        err: raised by an import.
    """
    module = (err.name or "").partition(".")[0]
    found = [_EXTRA.match(line) for line in requires("spikeloop") or ()]
    extras = [one[2] for one in found if one and one[1].replace("-", "_").lower() == module.lower()]
    if not extras:
        return None
    extra = next((one for one in _FIRST if one in extras), extras[0])
    return ConfigError(
        f"this command needs the package {module}, which is not installed: "
        f"pip install 'spikeloop[{extra}]' (with pipx: pipx install --force "
        f"'spikeloop[{'cpu' if extra == 'cpu' else f'cpu,{extra}'}]')"
    )
