"""The page of a demo: a process of its own, with control, at whatever port is free."""

from __future__ import annotations

from collections.abc import Mapping

from export.shipped import bundle_path
from service.bench.rig import Rig


def start_page(rig: Rig, endpoints: Mapping[str, str], bundle: str) -> str:
    """Start the page of a rig's daemon; the address at which commands may be given, too.

    Args:
        rig: where it runs.
        endpoints: the daemon's, by kind.
        bundle: its decoder.
    """
    token, announced = rig.path / "page-token", rig.path / "page.json"
    rig.start(
        "page", "page", "--decode", endpoints["decode"], "--control", endpoints["control"],
        "--bundle", str(bundle_path(bundle)), "--bind", "127.0.0.1:0", "--token", str(token),
        "--announce", str(announced),
    )  # fmt: skip
    url = rig.wait_for_file(announced, "page")["url"]
    return f"{url}#token={token.read_text().strip()}"
