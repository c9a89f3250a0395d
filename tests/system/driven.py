"""A daemon, and a simulated subject that drives by its decodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.shipped import bundle_path
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, Process

SUBJECT, DAY = "1", "25"
BASE = bundle_path("shipped:demo")


def subject_drives(
    run: Callable[..., Process], serve: DaemonStarter, name: str, **sections: Any
) -> tuple[Daemon, Process]:
    """Start both, and wait for `ok`; `sections` are added to the daemon's config."""
    daemon = serve(name, BASE, decoder={"lead_s": 0.1}, shaping={"smoothing": 0.5}, **sections)
    daemon.connect()
    subject = run(
        "simulate", "--subject", SUBJECT, "--day", DAY, "--name", name, "--decodes", daemon.endpoint
    )
    daemon.until_validity("ok")
    return daemon, subject
