"""`--page` of the demo and the daemon: a second process, which ends with the first."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import ConfigWriter
from tests.system.running import Process, wait_until
from tests.system.sources import Living
from tests.system.test_demo import processes_that_mention

URL = re.compile(r"the page is at (http://127\.0\.0\.1:\d+/)")
Run = Callable[..., Process]


def address(process: Process) -> str:
    """The page's, once it is told."""
    wait_until(lambda: URL.search(process.err) or not process.is_alive)
    found = URL.search(process.err)
    assert found, process.err
    return found[1]


def is_served(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return b"spikeloop" in answer.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_daemon_with_a_page_ends_it_with_itself(
    run: Run, config: ConfigWriter, stream: str, bundle: Path, source: Living, number: int
) -> None:
    daemon = run("serve", str(config(stream, bundle)), "--page")
    assert is_served(address(daemon))
    wait_until(lambda: source._outlet.has_consumers(), source.send_due)
    daemon.signal(number)
    assert daemon.code() == 0
    wait_until(lambda: not daemon.left_running())


def test_a_second_page_takes_another_port(run: Run, stream: str) -> None:
    first = run("page", "--decode", "tcp://127.0.0.1:5570")
    url = address(first)
    second = run("page", "--decode", "tcp://127.0.0.1:5570")
    assert address(second) != url
    for page in (first, second):
        page.signal(signal.SIGTERM)
        assert page.code() == 0


def test_a_page_ends_with_the_program_that_started_it(run: Run) -> None:
    page = run("page", "--decode", "tcp://127.0.0.1:5570", "--until-stdin-ends")
    assert page.code() == 0  # a test's standard input is at its end


def test_an_interrupted_demo_leaves_no_page(run: Run) -> None:
    demo = run("demo", "--page", "--json")
    assert is_served(address(demo))
    demo.signal(signal.SIGINT)
    assert demo.code() == 0
    assert not processes_that_mention(f"spikeloop-demo-{demo.popen.pid}")
    assert not demo.left_running()


def test_where_a_port_was_named_it_is_not_exchanged(run: Run) -> None:
    first = run("page", "--decode", "tcp://127.0.0.1:5570", "--bind", "127.0.0.1:0")
    taken = address(first).removeprefix("http://").removesuffix("/")
    second = run("page", "--decode", "tcp://127.0.0.1:5570", "--bind", taken)
    assert second.code() == 6
    assert "--bind" in second.err
