"""`python -m benchmarks.page.readers URL N`: what browsers read, and nothing drawn.

On a machine of few cores a browser that draws takes them from the daemon; a rig's draws elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect


async def read(url: str) -> None:
    """Read until the page ends."""
    origin = url.removesuffix("/")
    request = HTTPRequest(origin.replace("http", "ws", 1) + "/socket", headers={"Origin": origin})
    socket = await websocket_connect(request)
    await socket.write_message(json.dumps({"token": "", "order": "channel"}))
    while await socket.read_message() is not None:
        pass


async def read_all(url: str, n: int) -> None:
    """Read as so many browsers."""
    await asyncio.gather(*(read(url) for _ in range(n)))


if __name__ == "__main__":
    os.nice(15)
    asyncio.run(read_all(sys.argv[1], int(sys.argv[2])))
