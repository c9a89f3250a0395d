"""The page's server over real sockets: what it serves, to whom, and which commands it takes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.websocket import websocket_connect

from service.page.access import Access
from service.page.push import Browsers
from service.page.room import Room
from service.page.server import COMMANDS, make_application
from streams.wire.client import DaemonClient
from streams.wire.schema import Reply, decode_command, encode
from streams.wire.sockets import ControlServer
from tests.page.messages import decode, heartbeat

TOKEN = "a-token-of-this-test"
T0_S = 1000.0


class Daemon:
    """A real control socket that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self._server = ControlServer("tcp://127.0.0.1:*")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.client = DaemonClient(self._server.endpoint)

    def _run(self) -> None:
        while not self._ending.is_set():
            if (frames := self._server.receive(0.02)) is not None:
                command = decode_command(frames[0])
                self.asked.append((command.command, command.arguments))
                self._server.reply(encode(Reply(ok=True, error="", result={})))
        self._server.close()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


class Shown:
    """What is shown, without a daemon."""

    client = None

    def __init__(self) -> None:
        self.room = Room(T0_S)
        self.obeyed: list[dict] = []

    def recorded(self) -> None: ...

    def obey(self, said: dict) -> None:
        self.obeyed.append(said)


class Site:
    def __init__(self, port: int, browsers: Browsers) -> None:
        self.port, self.browsers = port, browsers
        self.origin = f"http://127.0.0.1:{port}"

    async def fetch(self, path: str, method: str = "GET", **options: object) -> HTTPResponse:
        body = options.pop("body", "" if method in ("POST", "PUT") else None)
        request = HTTPRequest(
            self.origin + path, method, body=body, allow_nonstandard_methods=True, **options
        )
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    async def command(self, headers: dict[str, str], command: object = "pause") -> HTTPResponse:
        body = json.dumps({"command": command, "arguments": {}})
        return await self.fetch("/command", "POST", headers=headers, body=body)

    @property
    def allowed(self) -> dict[str, str]:
        return {"Origin": self.origin, "Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def site(daemon: Daemon | None, token: str = TOKEN, **access: object) -> AsyncIterator[Site]:
    (socket,) = bind_sockets(0, "127.0.0.1")
    port = socket.getsockname()[1]
    browsers = Browsers(Shown())
    granted = Access("127.0.0.1", port, token, **access)
    server = HTTPServer(make_application(granted, browsers, daemon.client if daemon else None))
    server.add_sockets([socket])
    try:
        yield Site(port, browsers)
    finally:
        server.stop()
        browsers.close()
        await server.close_all_connections()


def run(test: Callable[[Site], Awaitable[None]], daemon: Daemon | None, **options: object) -> None:
    async def inside() -> None:
        async with site(daemon, **options) as made:
            await test(made)

    asyncio.run(inside())


@pytest.mark.parametrize(
    "path", ["/", "/static/page.js", "/static/page.css", "/bokeh/bokeh.min.js"]
)
def test_the_page_and_its_parts_are_served_and_fetch_nothing_else(path):
    async def test(page: Site) -> None:
        answer = await page.fetch(path)
        assert answer.code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    run(test, None)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_figures_are_served_in_both_themes(theme):
    async def test(page: Site) -> None:
        made = json.loads((await page.fetch(f"/figures/{theme}")).body)
        assert {"raster", "plane", "trace0", "latency", "stages", "timeline", "polar"} <= set(made)

    run(test, None)


@pytest.mark.parametrize(
    "path", ["/none", "/static/../server.py", "/bokeh/../../server.py", "/figures/x"]
)
def test_nothing_else_is_served(path):
    async def test(page: Site) -> None:
        assert (await page.fetch(path)).code in (403, 404)

    run(test, None)


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/figures/dark", "/command", "/none"])
def test_a_name_that_was_rebound_to_us_gets_nothing(path):
    async def test(page: Site) -> None:
        answer = await page.fetch(path, headers={"Host": f"evil.org:{page.port}"})
        assert answer.code == 403

    run(test, None)


def test_a_command_with_the_token_reaches_the_daemon(daemon):
    async def test(page: Site) -> None:
        body = json.dumps({"command": "mark", "arguments": {"text": "block 2"}})
        answer = await page.fetch("/command", "POST", headers=page.allowed, body=body)
        assert answer.code == 200
        assert json.loads(answer.body)["ok"]

    run(test, daemon)
    assert daemon.asked == [("mark", {"text": "block 2"})]


def test_commands_are_refused_without_the_token_and_from_elsewhere(daemon):
    async def test(page: Site) -> None:
        own, token = {"Origin": page.origin}, {"Authorization": f"Bearer {TOKEN}"}
        for headers, code in (
            (own, 401),
            (own | {"Authorization": "Bearer "}, 401),
            (own | {"Authorization": "Bearer wrong"}, 401),
            (own | {"Authorization": f"Basic {TOKEN}"}, 401),
            (own | {"Cookie": f"token={TOKEN}"}, 401),
            (token, 403),
            (token | {"Origin": "http://evil.org"}, 403),
            (token | {"Origin": "null"}, 403),
            (token | {"Origin": f"http://127.0.0.1:{page.port + 1}"}, 403),
            (token | {"Origin": page.origin.replace("http", "https")}, 403),
        ):
            answer = await page.command(headers)
            assert answer.code == code, headers
            assert not json.loads(answer.body)["ok"]

    run(test, daemon)
    assert not daemon.asked


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_commands_are_taken_by_post_alone(daemon, method):
    async def test(page: Site) -> None:
        query = "?command=pause&arguments={}"
        answer = await page.fetch(f"/command{query}", method, headers=page.allowed)
        assert answer.code == 405

    run(test, daemon)
    assert not daemon.asked


@pytest.mark.parametrize("command", ["stop", "send_begin", "send_chunk", "status", "halt", 3, None])
def test_other_commands_are_not_passed_on(daemon, command):
    async def test(page: Site) -> None:
        assert (await page.command(page.allowed, command)).code in (400, 403)

    run(test, daemon)
    assert not daemon.asked
    assert "stop" not in COMMANDS


@pytest.mark.parametrize("body", ["", "{", "[]", '{"command":"pause","more":1}', "\x00", '"pause"'])
def test_what_is_no_command_is_refused(daemon, body):
    async def test(page: Site) -> None:
        answer = await page.fetch("/command", "POST", headers=page.allowed, body=body)
        assert answer.code == 400

    run(test, daemon)
    assert not daemon.asked


def test_a_page_without_a_token_takes_no_command(daemon):
    async def test(page: Site) -> None:
        assert (await page.command(page.allowed)).code == 403

    run(test, daemon, token="")
    assert not daemon.asked


def test_a_daemon_that_is_gone_is_told_of(daemon):
    daemon.close()

    async def test(page: Site) -> None:
        answer = await page.command(page.allowed)
        assert answer.code == 502
        assert "no spikeloop daemon answered" in json.loads(answer.body)["error"]

    run(test, daemon)


async def open_socket(page: Site, origin: str | None = None) -> object:
    request = HTTPRequest(
        page.origin.replace("http", "ws") + "/socket", headers={"Origin": origin or page.origin}
    )
    return await websocket_connect(request)


async def leave(socket: object) -> None:
    """Close a socket, and wait until it is."""
    is_open = socket.close_code is None
    socket.close()
    while is_open and await socket.read_message() is not None:
        pass


def test_a_browser_is_pushed_what_the_room_knows():
    async def test(page: Site) -> None:
        room = page.browsers._inputs.room
        room.take(heartbeat(T0_S))
        room.take(decode(T0_S, 1))
        socket = await open_socket(page)
        await socket.write_message(json.dumps({"token": "", "order": "channel"}))
        hello = json.loads(await socket.read_message())
        assert hello == {"kind": "hello", "control": True, "may_command": False}
        page.browsers.push(T0_S + 0.01)
        kinds = [json.loads(await socket.read_message())["kind"] for _ in range(3)]
        assert kinds == ["rows", "fast", "slow"]
        await leave(socket)

    run(test, None)


def test_a_page_of_another_origin_cannot_listen():
    async def test(page: Site) -> None:
        with pytest.raises(Exception, match="403"):
            await open_socket(page, "http://evil.org")

    run(test, None)


def test_behind_a_proxy_only_the_token_opens_the_socket():
    async def test(page: Site) -> None:
        for token, is_seen in (("", False), ("wrong", False), (TOKEN, True)):
            socket = await open_socket(page)
            await socket.write_message(json.dumps({"order": "channel"}))
            page.browsers.push(T0_S)
            await socket.write_message(json.dumps({"token": token}))
            answer = await socket.read_message()
            assert (answer is not None) == is_seen
            assert (socket.close_code is None) == is_seen
            await leave(socket)

    run(test, None, origins=["https://page.lab.org"])


def test_a_browser_that_does_not_read_holds_up_nobody():
    """What it is not sent in between it gets later: its next columns begin where it was left."""

    class Slow:
        order, next_column, version = "channel", 0, -1
        is_behind = False

        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def send(self, payload: bytes, *, binary: bool = False) -> None:
            self.sent.append(payload)

        def close(self) -> None: ...

    browsers, slow, quick = Browsers(Shown()), Slow(), Slow()
    browsers.connected |= {slow, quick}
    for picture in range(1, 40):
        slow.is_behind = 5 <= picture < 35
        browsers.push(T0_S + picture / 30)
    assert len(slow.sent) < len(quick.sent)
