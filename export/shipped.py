"""The bundles that come with spikeloop."""

from __future__ import annotations

from pathlib import Path

SHIPPED = "shipped:"


def bundle_path(named: str) -> Path:
    """Return a bundle's path; `shipped:NAME` is one that comes with spikeloop."""
    # In the wheel and in the repository alike.
    if named.startswith(SHIPPED):
        return Path(__file__).parents[1] / "configs" / "bundles" / named.removeprefix(SHIPPED)
    return Path(named)
