"""A client of spikeloop in one file: copy it beside your program. Needs Python 3.10 and pyzmq.

    with SpikeloopClient("tcp://127.0.0.1:5570", safe={"velocity": [0.0, 0.0]}) as client:
        for answer in client:  # one for each decode, and whenever what is safe changes
            move(answer.value["velocity"])

`answer.value` holds the decode only where that may be acted on; else it holds `safe`. A program
with a loop of its own calls `client.update()` and `client.now()`, or `client.value_at(t)` for a
value between two decodes. See README.md, beside the folder, for the rules.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import zmq

Value = dict[str, list[float] | None]
"""Numbers of each output; None where there is none."""
Fields = dict[str, Any]
VALIDITIES = ("ok", "warmup", "stale", "paused", "fault")
REASONS = (
    "", "context_short", "no_spikes", "keep_alives_missed", "incomplete", "overdue", "paused",
    "stopping", "non_finite", "unknown_units", "backend_error", "clock_jump", "clock_uncertain",
    "other_clock", "spikes_rejected", "source_changed", "guard", "hung", "memory_damaged",
)  # fmt: skip
ASKED_EVERY_MS, SILENT_MOST_MS, RECONNECT_MS = 500, 2000, 20
TOPICS = (b"decode", b"heartbeat", b"event")
_HEAD = struct.Struct("<4s4B2HI2q6d4qIi")
_NAMES = (
    "seq", "beat", "t_window", "t_newest_spike", "t_cut", "t_done", "t_sent", "lead_s",
    "spikes_in", "spikes_late", "spikes_dropped", "beats_skipped", "tokens", "token_cap",
)  # fmt: skip
_NEEDED: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("run_id", str), ("seq", int), ("t_window", (int, float)), ("validity", str), ("value", dict),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What may be acted on now.

    Attributes:
        value: per output, the decode's numbers where usable, else the safe ones.
        usable: True if the decode may be acted on.
        why: "" where usable; else the decode's validity, or `none` (no decode yet), `old` (older
            than the stale limit), `future` (its clock is not ours) or `gone` (nothing is heard).
        seq, run_id, t_window, validity, reason, late: as the newest decode says.
        age_s: the clock's time less `t_window`.
        lost, skipped: decodes lost on the way, and beats that the daemon skipped, of this run.
        restarts: how often the daemon was seen to begin anew.
        refused: messages that could not be read, or came twice.
    """

    value: Value
    usable: bool = False
    why: str = "none"
    seq: int = 0
    run_id: str = ""
    t_window: float = math.nan
    validity: str = ""
    reason: str = ""
    late: bool = False
    age_s: float = math.inf
    lost: int = 0
    skipped: int = 0
    restarts: int = 0
    refused: int = 0


def read_decode(message: bytes) -> Fields:
    """Return the fields of a decode, JSON or packed; None where JSON has null.

    Raises:
        ValueError: it is neither, damaged, or of another version.
    """
    if message[:4] == b"SLPK":
        return _unpack(message)
    fields = json.loads(message)
    if not isinstance(fields, dict) or fields.get("schema") != 1:
        raise ValueError("no message of schema 1")
    return fields


def _unpack(message: bytes) -> Fields:
    if len(message) < _HEAD.size:
        raise ValueError("a packed decode that is cut off in its head")
    _, version, validity, reason, flags, n_head, n, n_text, *numbers = _HEAD.unpack_from(message)
    whole = n_head >= _HEAD.size and len(message) == n_head + 16 * n + n_text
    if version != 1 or not whole or validity >= len(VALIDITIES):
        raise ValueError(f"a packed decode of version {version} that cannot be read here")
    # The text stays the same until another decoder or backend takes over.
    fields: Fields = json.loads(message[len(message) - n_text :])
    counts = list(fields["outputs"].values())
    if sum(counts) != n or min(counts, default=0) < 0:
        raise ValueError("a packed decode whose text does not fit its numbers")
    fields |= {"late": bool(flags & 1), "validity": VALIDITIES[validity]}
    fields["reason"] = REASONS[reason] if reason < len(REASONS) else f"code {reason}"
    fields |= dict(zip(_NAMES, numbers, strict=True))
    if math.isnan(fields["t_newest_spike"]):
        fields["t_newest_spike"] = None
    if fields["token_cap"] < 0:
        fields["token_cap"] = None
    values = iter(struct.unpack_from(f"<{2 * n}d", message, n_head))
    for field in ("value", "value_raw"):
        fields[field] = {}
        for name, k in fields["outputs"].items():
            told = [None if math.isnan(v) else v for v in (next(values) for _ in range(k))]
            fields[field][name] = None if told == [None] * k else told
    return fields


class Follower:
    """The rules, without sockets: hand it what is heard and ask it what may be acted on.

    Args:
        safe: per output, what stands for a value that may not be used; None for the others.
        stale_s: no decode older than this is used, seconds.
        gone_s: after so long without any message the daemon is `gone`; it speaks every second.
        offset_s: the daemon's clock less this machine's, see `daemon_clock`.
    """

    def __init__(
        self,
        safe: Mapping[str, Sequence[float] | None] | None = None,
        stale_s: float = 0.1,
        gone_s: float = 3.0,
        offset_s: float = 0.0,
    ) -> None:
        self.safe = dict(safe or {})
        self.stale_s, self.gone_s, self.offset_s = stale_s, gone_s, offset_s
        self._decode: Fields = {}
        self._usable_before: Fields = {}
        self._t_heard = self._t_decode = math.nan
        self._lost = self._skipped = self._restarts = self._refused = 0

    def hear(self, frames: Sequence[bytes], t: float) -> bool:
        """Take in a message that came at `t` on this clock; True if it is a new decode."""
        if len(frames) != 2 or frames[0] not in TOPICS:
            return False  # `decode` also subscribes to each longer topic that begins so
        self._t_heard = t
        if frames[0] != b"decode":
            return False
        try:
            fields = read_decode(frames[1])
            if not all(isinstance(fields[name], kind) for name, kind in _NEEDED):
                raise ValueError("a decode whose fields are of other types")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._refused += 1
            return False
        return self._follow(fields, t)

    def _follow(self, fields: Fields, t: float) -> bool:
        before = self._decode
        if before and before["run_id"] == fields["run_id"]:
            ahead = fields["seq"] - before["seq"]
            if ahead <= 0:
                self._refused += 1
                return False
            self._lost += ahead - 1
            self._skipped += max(0, fields.get("beat", 0) - before.get("beat", 0) - ahead)
        elif before:
            self._restarts += 1
            self._lost = self._skipped = 0
        # A value before a restart, or before one that was not usable, is no neighbour.
        is_next = before and before["run_id"] == fields["run_id"] and before["validity"] == "ok"
        self._usable_before = before if is_next else {}
        self._decode, self._t_decode = fields, t
        return True

    def now(self, t: float) -> Answer:
        """Return what may be acted on at `t` on this clock, seconds."""
        decode = self._decode
        if math.isnan(self._t_heard):
            self._t_heard = t
        age_s = t + self.offset_s - decode["t_window"] if decode else math.inf
        if t - self._t_heard >= self.gone_s:
            why = "gone"
        elif not decode:
            why = "none"
        elif decode["validity"] != "ok":
            why = decode["validity"] if age_s <= self.stale_s else "old"
        elif age_s > self.stale_s:
            why = "old"
        else:
            why = "future" if age_s < -self.stale_s else ""
        return Answer(
            value=self._value(decode.get("value", {}), usable=not why),
            usable=not why,
            why=why,
            seq=decode.get("seq", 0),
            run_id=decode.get("run_id", ""),
            t_window=decode.get("t_window", math.nan),
            validity=decode.get("validity", ""),
            reason=decode.get("reason", ""),
            late=decode.get("late") is True,
            age_s=age_s,
            lost=self._lost,
            skipped=self._skipped,
            restarts=self._restarts,
            refused=self._refused,
        )

    def value_at(self, t: float) -> Answer:
        """Return the answer at `t`, its value interpolated: for a screen faster than the hop.

        When a decode comes, the value runs linearly from the one before to it, for as long as
        their windows are apart. So it lags by that time; it is never extrapolated.
        """
        answer, before = self.now(t), self._usable_before
        if not answer.usable or not before:
            return answer
        hop_s = answer.t_window - before["t_window"]
        since_s = t - self._t_decode
        part = min(max(since_s / hop_s, 0.0), 1.0) if 0 < hop_s <= self.stale_s else 1.0
        old = self._value(before["value"], usable=True)
        value: Value = {}
        for name, numbers in answer.value.items():
            start = old.get(name)
            if numbers is not None and start is not None and len(start) == len(numbers):
                numbers = [a + part * (b - a) for a, b in zip(start, numbers, strict=True)]
            value[name] = numbers
        return replace(answer, value=value)

    def _value(self, told: Mapping[str, Any], usable: bool) -> Value:
        value: Value = {}
        for name in {**self.safe, **told}:
            numbers = told.get(name) if usable else None
            if not isinstance(numbers, list) or not all(map(_is_number, numbers)):
                numbers = self.safe.get(name)
            value[name] = None if numbers is None else list(numbers)
        return value


def _is_number(v: Any) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)


class SpikeloopClient:
    """Follows a daemon's decodes; one thread uses it.

    Args:
        endpoint: the daemon's `[output] decode`.
        safe, stale_s, gone_s: see `Follower`.
        control: its `[output] control`, where the daemon runs on another machine: its clock is
            measured once, and whenever `measure_clock` is called.
        keys: what the file `client.json` of `spikeloop keys` holds, where it asks for keys.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5570",
        *,
        safe: Mapping[str, Sequence[float] | None] | None = None,
        stale_s: float = 0.1,
        gone_s: float = 3.0,
        control: str = "",
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.follower = Follower(safe, stale_s, gone_s)
        self._control, self._keys = control, dict(keys or {})
        if control:
            self.measure_clock()
        self._socket = _socket(zmq.SUB, endpoint, self._keys)
        for topic in TOPICS:
            self._socket.subscribe(topic)
        self._told = ""

    def __enter__(self) -> SpikeloopClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Answer]:
        """Yield an answer for each decode, and whenever `why` changes without one."""
        while True:
            answer = self.wait(0.01)
            if answer is not None:
                yield answer

    def run(self, act: Callable[[Answer], object]) -> None:
        """Call `act` with each answer, until it returns False."""
        for answer in self:
            if act(answer) is False:
                return

    def wait(self, timeout_s: float) -> Answer | None:
        """Take in one message; an answer if it is a decode, or if what may be used changed."""
        is_decode = bool(self._socket.poll(max(0, math.ceil(timeout_s * 1e3)))) and self._take()
        answer = self.now()
        if not is_decode and answer.why == self._told:
            return None
        self._told = answer.why
        return answer

    def update(self) -> Answer:
        """Take in all that waits; what may be acted on now."""
        while self._socket.poll(0):
            self._take()
        return self.now()

    def now(self) -> Answer:
        """Return what may be acted on now, by what was taken in."""
        return self.follower.now(time.monotonic())

    def value_at(self, t: float | None = None) -> Answer:
        """Return the interpolated answer at `t`, `time.monotonic()` unless given."""
        return self.follower.value_at(time.monotonic() if t is None else t)

    def measure_clock(self) -> float:
        """Measure the daemon's clock anew, once a minute say; by how far it may be off, seconds."""
        self.follower.offset_s, within_s = daemon_clock(self._control, self._keys)
        return within_s

    def close(self) -> None:
        """Hang up."""
        self._socket.close(0)

    def _take(self) -> bool:
        frames = self._socket.recv_multipart()
        return self.follower.hear(frames, time.monotonic())


def daemon_clock(
    control: str, keys: Mapping[str, str] | None = None, tries: int = 5
) -> tuple[float, float]:
    """Ask `status` for the daemon's time.

    Returns:
        Its clock less this machine's, and by how far that may be off, in seconds.

    Raises:
        TimeoutError: nobody answered.
    """
    socket = _socket(zmq.REQ, control, dict(keys or {}))
    best = (0.0, math.inf)
    try:
        for _ in range(tries):
            asked = time.monotonic()
            socket.send_json({"schema": 1, "command": "status", "arguments": {}})
            if not socket.poll(2000):
                raise TimeoutError(f"no daemon answered at {control}")
            reply, answered = json.loads(socket.recv()), time.monotonic()
            if reply["ok"] and (answered - asked) / 2 < best[1]:
                offset_s = reply["result"]["t_sent"] - (asked + answered) / 2
                best = offset_s, (answered - asked) / 2
    finally:
        socket.close(0)
    return best


def _socket(kind: int, endpoint: str, keys: Mapping[str, str]) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.ipv6 = "[" in endpoint
    # Else a mended link brings old decodes. The daemon goes by the last one: it asks nobody.
    socket.heartbeat_ivl, socket.heartbeat_timeout = ASKED_EVERY_MS, SILENT_MOST_MS
    socket.heartbeat_ttl = SILENT_MOST_MS
    socket.reconnect_ivl = RECONNECT_MS
    if keys:
        socket.curve_serverkey = keys["other"].encode()
        socket.curve_publickey = keys["public"].encode()
        socket.curve_secretkey = keys["secret"].encode()
    socket.connect(endpoint)
    return socket
