"""Messages as a daemon sends them, made one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.page.inputs.wire import Heard

GOLDEN = Path(__file__).parents[1] / "streams" / "golden"


def golden(kind: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((GOLDEN / f"{kind}.json").read_text())
    return message


def decode(t_s: float, beat: int, **fields: Any) -> Heard:
    """A decode that was received at `t_s`, 5 ms after its window's end."""
    times = {
        "t_window": t_s - 5e-3, "t_cut": t_s - 4e-3, "t_done": t_s - 3e-3, "t_sent": t_s - 2e-3,
        "t_newest_spike": t_s - 6e-3,
    }  # fmt: skip
    usual = {"validity": "ok", "reason": "", "late": False, "beats_skipped": 0, "lead_s": 0.0}
    value = {"velocity": [1.0, -2.0]}
    message = golden("decode") | times | usual | {"value": value, "value_raw": value}
    message |= {"units": {"velocity": "cm/s"}, "beat": beat, "seq": beat} | fields
    return Heard(t_s, "decode", message)


def timing(t_s: float, beat: int, **fields: Any) -> Heard:
    """The timing of that decode."""
    times = {
        "t_window": t_s - 5e-3, "t_due": t_s - 4.5e-3, "t_cut": t_s - 4e-3,
        "t_tokens": t_s - 3.5e-3, "t_done": t_s - 3e-3, "t_sent": t_s - 2e-3, "t_out": t_s - 1e-3,
        "t_end": t_s,
    }  # fmt: skip
    message = golden("timing") | times | {"beat": beat, "seq": beat, "cut_by": "watermark"}
    return Heard(t_s + 1e-3, "timing", message | fields)


def heartbeat(t_s: float, **fields: Any) -> Heard:
    return Heard(t_s, "heartbeat", golden("heartbeat") | {"t_sent": t_s, "hop_ms": 20.0} | fields)


def event(t_s: float, name: str, **detail: Any) -> Heard:
    return Heard(t_s, "event", golden("event") | {"t_sent": t_s, "event": name, "detail": detail})
