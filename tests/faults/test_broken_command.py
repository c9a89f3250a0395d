"""A command fails in a way that nobody expected: answered, told, and the run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import running
from tests.system.conftest import DaemonStarter
from tests.system.running import wait_until
from tests.system.sender_process import SenderProcess

NAME = "broken"


def test_a_command_that_fails_is_answered_and_told(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(running, "_RUN", f"import tests.faults.broken_command; {running._RUN}")
    daemon = serve(stream, bundle)
    run_id = daemon.until_validity("ok")["run_id"]
    reply = daemon.ask(NAME)
    assert not reply.ok
    assert "broken: it failed: KeyError" in reply.error
    event = daemon.until_event("command_failed")
    assert event["detail"] == {"command": NAME, "warning": reply.error}
    wait_until(lambda: "command_failed" in daemon.err, daemon.listen)
    assert "Traceback" not in daemon.err
    assert daemon.ask("status").ok
    assert daemon.until_validity("ok")["run_id"] == run_id
    assert daemon.end() == 0
