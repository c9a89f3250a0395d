"""Another program sends a stream of the same name and source_id, from this machine or another."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from streams.lsl.inlets import matching_streams
from tests.faults.seen import Seen
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.running import Daemon, keep_on
from tests.system.sender_process import SenderProcess
from tests.system.sources import Living

CONTEXT_S = 0.5
"""The tiny bundle's."""
FOREIGN = "another-machine"


def _may_be_another_host() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("hostname") is None:
        return False
    return subprocess.run(["unshare", "--uts", "true"], check=False).returncode == 0


from_another_host = pytest.mark.skipif(
    not _may_be_another_host(), reason="needs a UTS namespace, and for that root"
)


def two_answer(stream: str) -> bool:
    return len(matching_streams(name=stream, wait_s=1.0)) == 2


def not_ok_after(daemon: Daemon, t_s: float) -> None:
    """The first decode of the new stream that is `ok` had context of its own."""
    daemon.listen()
    first = next(d for d in daemon.heard.decodes if d["t_sent"] > t_s and d["validity"] == "ok")
    assert first["t_window"] > t_s + CONTEXT_S - 2 * HOP_S
    between = {d["validity"] for d in daemon.heard.decodes if t_s < d["t_sent"] < first["t_sent"]}
    assert "warmup" in between


@pytest.mark.parametrize("hostname", [None, pytest.param(FOREIGN, marks=from_another_host)])
def test_who_takes_over_is_told_and_begins_with_warmup(
    serve: DaemonStarter, bundle: Path, stream: str, hostname: str | None, seen: Seen
) -> None:
    first = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", first.send_due)
    second = SenderProcess(stream, UNIT_KEYS, hostname)
    daemon.until(lambda _: two_answer(stream), first.send_due)
    assert daemon.until_validity("ok", first.send_due)  # the second one changes nothing yet
    assert not [e for e in daemon.heard.events if e["event"].startswith("source")]
    seen.fault(daemon)
    first.close()
    daemon.until_event("source_lost")
    back = daemon.until_event("source_back")
    assert back["detail"]["changed"] == (["hostname", "uid"] if hostname else ["uid"])
    assert ("warning" in back["detail"]) == (hostname is not None)
    assert f"host {hostname or socket.gethostname()}" in back["detail"]["stream"]
    daemon.until_validity("ok")
    not_ok_after(daemon, back["t_sent"])
    second.close()


@from_another_host
def test_a_named_host_keeps_others_out(serve: DaemonStarter, bundle: Path, stream: str) -> None:
    first = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle, input={"hostname": socket.gethostname()})
    daemon.until_validity("ok", first.send_due)
    second = SenderProcess(stream, UNIT_KEYS, FOREIGN)
    daemon.until(lambda _: two_answer(stream), first.send_due)
    first.close()
    daemon.until_event("source_lost")
    n_before = len(daemon.heard.decodes)
    keep_on(3.0, daemon.listen)
    assert not [e for e in daemon.heard.events if e["event"] == "source_back"]
    assert "ok" not in {d["validity"] for d in daemon.heard.decodes[n_before + 10 :]}
    again = Living(stream, UNIT_KEYS)
    back = daemon.until_event("source_back", again.send_due)
    assert back["detail"]["changed"] == ["uid"]
    daemon.until_validity("ok", again.send_due)
    again.close()
    second.close()
