"""Manifests with odd values in any place."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from export.errors import BundleError
from export.manifest import parse_manifest
from tests.fuzz.mutations import altered, fuzz
from tests.fuzz.sentences import check_refusal

DEMO = Path(__file__).parents[2] / "configs" / "bundles" / "demo" / "manifest.json"
CONTENT = json.loads(DEMO.read_text()) | {"units": json.loads(DEMO.read_text())["units"][:3]}


@fuzz()
def test_a_manifest_with_odd_values(rng: Random) -> None:
    content = altered(rng, CONTENT)
    check_refusal(lambda: parse_manifest(content, "manifest.json"), BundleError)
