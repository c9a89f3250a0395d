"""FALCON's names: which session a file belongs to, by its name on DANDI or on EvalAI."""

from __future__ import annotations

import re
from pathlib import Path

from calibration.errors import FalconError

DAY = re.compile(r"((?:19|20)\d\d)-?(\d\d)-?(\d\d)(?!\d)")
RUN = re.compile(r"Run\d+")
H1_START = re.compile(r"ses-1925(\d{4})T(\d{6})")
H1_SET = re.compile(r"(?:^|[_-])(S\d+)(?:[_-]set[_-](\d+))?(?=[_-]|$)")
H1_STARTS = {
    "0101": ("111740", "112404"),
    "0108": ("110520", "111022", "111455"),
    "0113": ("120811", "121303"),
    "0115": ("110633", "111328"),
    "0119": ("113543", "114045"),
    "0120": ("115044", "115537"),
    "0126": ("113454", "114029"),
    "0127": ("120333", "120826"),
    "0129": ("112555", "113059"),
    "0202": ("113958", "114452"),
    "0203": ("113515", "114018"),
    "0206": ("112219", "112712"),
    "0209": ("111826", "112327"),
}
"""When H1's sessions S0, S1, ... and their sets began: files on DANDI are named by it."""
OF_SEVERAL = (re.compile(r"^Run\d+_(\d+)$"), re.compile(r"^(S\d+)_set_\d+$"))
"""Tags of files of which a session may have several: `Run1_20201019` and `S0_set_1`."""


def session_of(tag: str) -> str:
    """Session for a file's tag; its files are scored together."""
    matches = (pattern.match(tag) for pattern in OF_SEVERAL)
    return next((match[1] for match in matches if match), tag)


def tag_of(file: Path) -> str:
    """The benchmark's tag for a file: `20120924`, `Run1_20201019` or `S0_set_1`.

    Raises:
        FalconError: the name tells none.
    """
    name = file.stem
    started, of_set, found = H1_START.search(name), H1_SET.search(name), DAY.search(name)
    if started is not None and started[2] in H1_STARTS.get(started[1], ()):
        sets = H1_STARTS[started[1]]
        return f"S{list(H1_STARTS).index(started[1])}_set_{sets.index(started[2]) + 1}"
    if of_set is not None:
        return of_set[1] + (f"_set_{of_set[2]}" if of_set[2] else "")
    if found is None:
        raise FalconError(
            f"{file.name} names no session of FALCON's: keep the names that the files have on "
            "DANDI, for they tell which are scored together"
        )
    day, run = "".join(found.groups()), RUN.search(name)
    return f"{run[0]}_{day}" if run else day
