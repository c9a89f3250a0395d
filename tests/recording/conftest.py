"""Daemons that record, and what reads their recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.telemetry.recording.frames import parts_of
from tests.faults.conftest import living
from tests.recording.recorded import only_run
from tests.system.conftest import (
    UNIT_KEYS,
    bundle,
    config,
    daemon,
    other,
    run,
    serve,
    source,
    stream,
    write_config,
)
from tests.system.running import Daemon, Heard, keep_on, unique
from tests.system.sources import Living

__all__ = ["bundle", "config", "daemon", "living", "other", "run", "serve", "source", "stream"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run of some seconds, ended in order.

    Attributes:
        path: its folder.
        heard: what a client heard.
        n_sent: spikes sent.
    """

    path: Path
    heard: Heard
    n_sent: int


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Recorded]:
    """A recorded run of several parts, shared: copy it before you change it."""
    folder, name = tmp_path_factory.mktemp("recorded"), unique("spikes")
    source = Living(name, UNIT_KEYS)
    record = {"enabled": True, "folder": str(folder / "recordings"), "part_mb": 0.01}
    daemon = Daemon(folder, write_config(folder, name, bundle, record=record))
    try:
        daemon.until_validity("ok", source.send_due)

        def parts() -> bool:
            return len(parts_of(only_run(folder / "recordings"))) > 3

        daemon.until(lambda heard: parts(), source.send_due)
        assert daemon.ask("pause").ok
        keep_on(0.5, lambda: (source.send_due(), daemon.listen()))
        assert daemon.end() == 0
        yield Recorded(only_run(folder / "recordings"), daemon.heard, source.n_sent)
    finally:
        daemon.kill()
        source.close()
