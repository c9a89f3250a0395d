"""Rankings kept in the user's cache folder, each for one graph, these libraries and this machine.

A file that cannot be read is no ranking, and a folder that cannot be written is no obstacle:
backends are timed again then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.choice.ranking import Ranking
from streams.files import write_whole

FORMAT = 1
FOLDER = "choices"
N_HEX = 16
Key = Mapping[str, Any]


def recall(folder: Path, key: Key) -> Ranking | None:
    """Return the ranking that was kept for this key.

    Args:
        folder: spikeloop's cache folder.
        key: what the ranking holds for; `graph` is the graph's checksum.
    """
    try:
        held = json.loads(_path(folder, key).read_bytes())
        if held["format"] != FORMAT or held["key"] != key:
            return None
        step_ms = {str(name): float(ms) for name, ms in held["step_ms"].items()}
        back_to_back_ms = {name: float(held["back_to_back_ms"][name]) for name in step_ms}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Ranking(step_ms, back_to_back_ms, remembered=True) if step_ms else None


def remember(folder: Path, key: Key, ranking: Ranking) -> str:
    """Keep a ranking; it replaces an older one for the same key.

    Returns:
        Why it could not be kept; "" if it is.
    """
    content = {
        "format": FORMAT,
        "key": key,
        "step_ms": ranking.step_ms,
        "back_to_back_ms": ranking.back_to_back_ms,
    }
    path = _path(folder, key)
    if not path.is_absolute():
        return "there is no home, and so no cache folder"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        return f"{path.parent} cannot be written: {error.strerror}"
    return ""


def _path(folder: Path, key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / FOLDER / f"{key['graph'][:N_HEX]}-{digest[:N_HEX]}.json"


def cache_folder() -> Path:
    """Folder of what spikeloop keeps between runs; a relative path where the user has no home."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(usual) / "spikeloop"
