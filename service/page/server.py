"""The page's web server: the page itself, a socket that pushes to browsers, and commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bokeh
import msgspec
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from service.page.access import Access
from service.page.figures import figures
from service.page.push import Browsers
from service.page.room import ORDERS
from streams.errors import StreamsError
from streams.wire.client import DaemonClient

HERE = Path(__file__).parent / "static"
BOKEH = Path(bokeh.__file__).parent / "server" / "static" / "js"
"""BokehJS, as it comes in Bokeh's wheel."""
COMMANDS = frozenset(
    ("pause", "resume", "mark", "shape", "swap", "promote", "rollback", "dismiss", "deployment")
)
MESSAGE_AT_MOST = 16_384
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


def make_application(
    access: Access, browsers: Browsers, client: DaemonClient | None
) -> Application:
    """Make the web application.

    Args:
        access: who may look and command.
        browsers: those that are connected.
        client: the daemon's; None where nothing can be commanded.
    """
    shared = {"access": access}
    return Application(
        [
            (r"/()", _Static, {"access": access, "path": HERE, "default_filename": "page.html"}),
            (r"/static/(.*)", _Static, {"access": access, "path": HERE}),
            (r"/bokeh/(bokeh(?:-gl)?\.min\.js)", _Static, {"access": access, "path": BOKEH}),
            (r"/figures/(dark|light)", _Figures, shared),
            (r"/socket", _Socket, shared | {"browsers": browsers}),
            (r"/command", _Command, shared | {"client": client}),
        ],
        default_handler_class=_Nothing,
        default_handler_args=shared,
        compress_response=True,
        websocket_ping_interval=10,
        websocket_max_message_size=MESSAGE_AT_MOST,
        log_function=lambda handler: None,
    )


def _guard(handler: RequestHandler, access: Access) -> None:
    """Refuse requests that were meant for another host."""
    if not access.knows_host(handler.request.host):
        raise HTTPError(403, "unknown host")


class _Handler(RequestHandler):
    def initialize(self, access: Access) -> None:
        self.access = access

    def prepare(self) -> None:
        _guard(self, self.access)

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **details: Any) -> None:
        self.set_header("Content-Type", "application/json")
        told = details.get("exc_info", (None, None))[1]
        text = getattr(told, "log_message", None) or self._reason
        self.finish(json.dumps({"ok": False, "error": text}))


class _Nothing(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(404, "there is no such page")


class _Static(StaticFileHandler):
    def initialize(  # type: ignore[override]
        self, access: Access, path: Path, default_filename: str | None = None
    ) -> None:
        super().initialize(str(path), default_filename)
        self.access = access

    def prepare(self) -> None:
        _guard(self, self.access)

    def set_extra_headers(self, path: str) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)


class _Figures(_Handler):
    def get(self, theme: str) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(figures(theme))


class _Command(_Handler):
    """Carries one command to the daemon; POST only, from our own page, with the token."""

    def initialize(self, access: Access, client: DaemonClient | None = None) -> None:
        self.access, self.client = access, client

    async def post(self) -> None:
        """Check who asks for what, then ask the daemon."""
        if not self.access.knows_origin(self.request.headers.get("Origin")):
            raise HTTPError(403, "commands are taken from this page alone")
        _, _, token = self.request.headers.get("Authorization", "").partition("Bearer ")
        if not self.access.is_controlled or self.client is None:
            raise HTTPError(403, "this page is for looking only; see --token in docs/page.md")
        if not self.access.has_token(token):
            raise HTTPError(401, "the token is missing or wrong")
        try:
            asked = msgspec.json.decode(self.request.body[:MESSAGE_AT_MOST], type=_Asked)
        except msgspec.DecodeError as err:
            raise HTTPError(400, f"no command: {err}") from err
        if asked.command not in COMMANDS:
            raise HTTPError(403, f"the page does not give the command {asked.command!r}")
        loop, client = asyncio.get_running_loop(), self.client

        def ask() -> bytes:
            return msgspec.json.encode(client.reply(asked.command, **asked.arguments))

        try:
            reply = await loop.run_in_executor(None, ask)
        except (StreamsError, TypeError) as err:
            raise HTTPError(502, str(err).replace("%", "%%")) from err
        self.set_header("Content-Type", "application/json")
        await self.finish(reply)


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    command: str
    arguments: dict[str, Any] = {}


class _Socket(WebSocketHandler):
    """One browser: it says its token and the raster's order, and is pushed the rest."""

    def initialize(self, access: Access, browsers: Browsers) -> None:
        self.access, self.browsers = access, browsers
        self.order, self.next_column, self.version = ORDERS[0], 0, -1
        self.may_look = False
        self._sent: list[asyncio.Future[None]] = []

    def prepare(self) -> None:
        _guard(self, self.access)

    def check_origin(self, origin: str) -> bool:
        return self.access.knows_origin(origin)

    def on_message(self, message: str | bytes) -> None:
        try:
            said = json.loads(message)
            token, order = str(said.get("token", "")), said.get("order")
        except (ValueError, AttributeError):
            self.close(1003, "no JSON object")
            return
        if "token" in said:
            self.may_look = self.access.may_look(token)
            if not self.may_look:
                self.close(4401, "the token is missing or wrong")
                return
            may = self.access.has_token(token)
            hello = {"kind": "hello", "control": self.access.is_controlled, "may_command": may}
            self.send(msgspec.json.encode(hello))
            self.browsers.connected.add(self)
        if order in ORDERS:
            self.order, self.next_column, self.version = order, 0, -1
        elif self.may_look and "token" not in said:
            self.browsers.obey(said)

    def on_close(self) -> None:
        self.browsers.connected.discard(self)

    @property
    def is_behind(self) -> bool:
        """True while what was sent before is still on its way."""
        self._sent = [one for one in self._sent if not one.done()]
        return bool(self._sent)

    def send(self, payload: bytes, *, binary: bool = False) -> None:
        """Send a message."""
        self._sent.append(asyncio.ensure_future(self._write(payload, binary)))

    async def _write(self, payload: bytes, binary: bool) -> None:
        try:
            await self.write_message(payload, binary)
        except WebSocketClosedError:  # a browser that has gone is no failure
            self.browsers.connected.discard(self)
