"""The daemon at every loopback address that people write, with no keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.streams.test_sockets import LOOPBACKS
from tests.system.conftest import DaemonStarter
from tests.system.running import Process
from tests.system.sources import Living


@pytest.mark.parametrize("address", LOOPBACKS)
def test_decodes_and_commands(
    serve: DaemonStarter,
    run: Callable[..., Process],
    bundle: Path,
    stream: str,
    source: Living,
    address: str,
) -> None:
    daemon = serve(stream, bundle, output={"decode": address, "control": address})
    assert daemon.until_validity("ok", source.send_due)["validity"] == "ok"
    watch = run("watch", "--decode", daemon.endpoint, "--count", "1")
    daemon.until(lambda _: not watch.is_alive, source.send_due)
    assert watch.code() == 0
    stop = run("stop", "--control", daemon.control)
    assert stop.code() == 0
    assert daemon.code() == 0
