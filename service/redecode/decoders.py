"""Find and open the decoders that a recorded run names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.backends.table import BACKENDS, parse_choice
from export.bundle import MANIFEST, DecoderBundle, open_bundle
from export.choice.gate import require_parity
from export.choice.machine import cpu_model
from export.errors import BackendUnavailable
from service.redecode.replay import Opened

REFERENCE = "onnxruntime-cpu"


class RecordedDecoders:
    """Opens decoders by what the record tells of them, each with a backend of its own.

    Args:
        facts: the run's, see `RecordedRun`.
        folders: where to look for bundles that are not where they were.
        backend: runs all of them, as in the config; "" for what ran them.

    Attributes:
        is_exact: backends, their libraries and the machine are those of the run.
        atol: largest difference that the bundles' parity records allow, output units.
        remarks: what is not as it was, a sentence each.
    """

    def __init__(self, facts: Mapping[str, Any], folders: list[Path], backend: str = "") -> None:
        self.is_exact, self.atol = True, 0.0
        self.remarks: list[str] = []
        self._folders, self._backend = folders, backend
        if facts.get("machine") != cpu_model():
            self._differs(f"the run was on another machine ({facts.get('machine')})")

    def open(self, told: Mapping[str, Any]) -> Opened | None:
        """Open a decoder; None where its bundle cannot be found."""
        if not told:
            return None
        bundle = self._bundle(told)
        if bundle is None:
            self._remark(
                f"the bundle of {told['name']!r}, {told['checksum'][:12]}, is not at "
                f"{told['bundle']} any more: name its folder, or one that holds it, with --bundles"
            )
            return None
        name, precision = self._choice(told)
        backend = BACKENDS[name](bundle, precision)
        require_parity(bundle, backend)
        backend.reset()
        parity = bundle.manifest.parity
        atol = parity.atol_fp32 if backend.precision == "fp32" else parity.atol_reduced
        self.atol = max(self.atol, atol)
        if (backend.name, backend.precision) != (told["backend"], told["precision"]):
            self._differs(f"{told['backend']} ran {told['name']!r}, here {backend.name} does")
        elif backend.library != told["library"]:
            self._differs(f"{told['library']} ran {told['name']!r}, here {backend.library} does")
        return Opened(bundle, backend)

    def _choice(self, told: Mapping[str, Any]) -> tuple[str, str]:
        if self._backend:
            return parse_choice(self._backend)
        for choice in (told["choice"], f"{told['backend']}:{told['precision']}"):
            with contextlib.suppress(BackendUnavailable):  # this installation does not know it
                return parse_choice(choice)
        return REFERENCE, "fp32"

    def _bundle(self, told: Mapping[str, Any]) -> DecoderBundle | None:
        for path in self._places(told):
            if _id_at(path) == told["checksum"]:
                return open_bundle(path)
        return None

    def _places(self, told: Mapping[str, Any]) -> list[Path]:
        places = [Path(told["bundle"])]
        for folder in self._folders:
            places += [folder, *sorted(one.parent for one in folder.glob(f"**/{MANIFEST}"))]
        return places

    def _differs(self, why: str) -> None:
        self.is_exact = False
        self._remark(why)

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def _id_at(path: Path) -> str:
    """Return the id that a bundle's manifest names; "" where there is none."""
    try:
        with (path / MANIFEST).open("rb") as file:
            held = json.loads(file.read())
        return str(held["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
