"""`spikeloop page`: inputs are drained and browsers are pushed to, thirty times a second."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import socket

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from export.bundle import open_bundle
from service.errors import cannot_write
from service.page.access import Access, read_bind, read_token
from service.page.live import LiveInputs
from service.page.options import PageOptions
from service.page.push import Browsers, Inputs
from service.page.recorded import RecordedInputs
from service.page.server import make_application
from streams.clock import Clock, MonotonicClock
from streams.errors import AddressError
from streams.files import write_whole

PICTURE_S, UNSEEN_S = 1 / 30, 0.1
OURS = "127.0.0.1:5580"
NICENESS = 5
"""The page gives way to the daemon and to what feeds it."""


def show(options: PageOptions, announce: Path | None, is_stopped: Callable[[], bool]) -> None:
    """Serve the page until told to stop.

    Args:
        options: what to show, and where.
        announce: a file to write the page's address to (JSON); None for none.
        is_stopped: asked thirty times a second.

    Raises:
        AddressError: it cannot be served there.
        BundleError: the bundle cannot be opened.
        ConfigError: the token cannot be read, or the file not be written.
    """
    with suppress(OSError):
        os.nice(NICENESS)
    bundle = open_bundle(options.bundle) if options.bundle else None
    clock = MonotonicClock()
    inputs: Inputs = (
        RecordedInputs(options.run, bundle, clock)
        if options.run
        else LiveInputs(options, bundle, clock)
    )
    try:
        asyncio.run(_serve(options, inputs, clock, announce, is_stopped))
    finally:
        inputs.close()


async def _serve(
    options: PageOptions,
    inputs: Inputs,
    clock: Clock,
    announce: Path | None,
    is_stopped: Callable[[], bool],
) -> None:
    host, sockets = _bound(options.bind)
    port = sockets[0].getsockname()[1]
    token = read_token(options.token) if options.token else ""
    access = Access(host, port, token, options.origins)
    browsers = Browsers(inputs)
    server = HTTPServer(make_application(access, browsers, inputs.client))
    server.add_sockets(sockets)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    _announce(announce, url, options)
    t_next_s = clock.now()
    while not is_stopped():
        now_s = inputs.drain()
        browsers.push(now_s)
        every_s = PICTURE_S if browsers.connected else UNSEEN_S
        t_next_s = next_picture_s(t_next_s, every_s, clock.now())
        await asyncio.sleep(pause_s(t_next_s, every_s, clock.now()))
    server.stop()
    browsers.close()


def next_picture_s(t_due_s: float, every_s: float, now_s: float) -> float:
    """Return when the next picture is due.

    One that was late does not put off those after it, or a busy machine would show fewer than it
    can; those that a stall took are left out.

    Args:
        t_due_s: when the last one was due.
        every_s: from one to the next.
        now_s: when the last one was done.
    """
    return max(t_due_s + every_s, now_s - every_s)


def pause_s(t_due_s: float, every_s: float, now_s: float) -> float:
    """Return how long to wait for a picture that is due then.

    At least half of what lies between two: screens would show what comes sooner as one, and to a
    browser that has not yet been sent the one before it is not sent at all.
    """
    return max(t_due_s - now_s, every_s / 2)


def _bound(bind: str) -> tuple[str, list[socket]]:
    """Bind to HOST:PORT; if none is named to ours, or to any port while another page has that."""
    host, port = read_bind(bind or OURS)
    try:
        return host, bind_sockets(port, host)
    except OSError as err:
        if not bind and err.errno == errno.EADDRINUSE:
            return host, bind_sockets(0, host)
        raise AddressError(
            f"cannot serve the page at {bind or OURS}: {err.strerror}; name another with --bind"
        ) from err


def _announce(announce: Path | None, url: str, options: PageOptions) -> None:
    sys.stderr.write(f"the page is at {url}\n")
    if options.token:
        sys.stderr.write(f"who commands opens it with the token in {options.token}\n")
    sys.stderr.flush()
    if announce is not None:
        try:
            write_whole(announce, json.dumps({"url": url, "pid": os.getpid()}))
        except OSError as err:
            raise cannot_write(announce, err) from err
