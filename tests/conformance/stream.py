"""The recorded stream: messages, and what a client must answer to each.

A line of `stream.jsonl` is a step. `frames` are the frames of a message: the topic, and an object
that is sent as JSON or as the bytes that `base64` holds. Times are moved before a message is sent,
so that its window ended `age_s` ago. `answer` is what the client must print; without one it must
say nothing. A step with `wait_s` is a silence, and the answer must not come before it is over. One
with `every_s` and `for_s` is sent again and again for so long.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

STREAM = Path(__file__).parent / "stream.jsonl"
AGE_S = 0.005
_TIMES = struct.Struct("<5d")
_TIMES_AT = 32


def read_stream() -> list[dict[str, Any]]:
    """Return the steps in order."""
    return [json.loads(line) for line in STREAM.read_text().splitlines()]


def frames_at(step: dict[str, Any], now_s: float) -> list[bytes]:
    """Return the message's frames as they are sent at `now_s`."""
    t_window = now_s - step.get("age_s", AGE_S)
    return [_frame(frame, t_window) for frame in step["frames"]]


def _frame(frame: str | dict[str, Any], t_window: float) -> bytes:
    if isinstance(frame, str):
        return frame.encode()
    if set(frame) == {"base64"}:
        return _move_packed(base64.b64decode(frame["base64"]), t_window)
    moved = dict(frame)
    if "t_window" in frame:
        for name, value in frame.items():
            if name.startswith("t_") and value is not None:
                moved[name] = value - frame["t_window"] + t_window
    return json.dumps(moved).encode()


def _move_packed(message: bytes, t_window: float) -> bytes:
    if message[:4] != b"SLPK" or len(message) < _TIMES_AT + _TIMES.size:
        return message
    times = _TIMES.unpack_from(message, _TIMES_AT)
    moved = [t - times[0] + t_window for t in times]
    return message[:_TIMES_AT] + _TIMES.pack(*moved) + message[_TIMES_AT + _TIMES.size :]
