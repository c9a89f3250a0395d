"""Write `stream.jsonl` anew: real messages of a daemon, and every fault that a client may meet.

`python -m tests.conformance.record`. The messages are a daemon's own, in both forms and of two
runs. The faults are edits of them: a hole is a number left out, a truncated message is cut.
"""

from __future__ import annotations

import base64
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq

from tests.conformance.stream import STREAM
from tests.export.tiny_graph import write_tiny_bundle
from tests.system.conftest import HOP_S, UNIT_KEYS, write_config
from tests.system.running import Daemon, unique, wait_until
from tests.system.sources import Living

Fields = dict[str, Any]
SAFE = {"velocity": [0.0, 0.0], "position": None}
"""What the clients under test are told: `velocity` is safe at zero, and nothing else is named."""
OLD_S, ELSEWHERE_S = 2.0, -3600.0
VALIDITY_AT, REASON_AT, FLAGS_AT, SEQ_AT, BEAT_AT = 5, 6, 7, 16, 24


class Recorded:
    """What a daemon published, by validity; and a heartbeat and an event of it."""

    def __init__(self, folder: Path, form: str) -> None:
        self.decodes: dict[str, list[bytes]] = {}
        self.others: dict[str, Fields] = {}
        stream = unique("conformance")
        source = Living(stream, UNIT_KEYS)
        bundle = folder / f"bundle-{form}"
        write_tiny_bundle(bundle, UNIT_KEYS, HOP_S, HOP_S, with_position=True)
        daemon = Daemon(folder, write_config(folder, stream, bundle, output={"format": form}))
        daemon.connect()
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        socket.connect(daemon.endpoint)
        socket.subscribe("")
        try:
            self._listen(daemon, source, socket)
        finally:
            socket.close(0)
            daemon.kill()
            source.close()

    def _listen(self, daemon: Daemon, source: Living, socket: zmq.Socket[bytes]) -> None:
        def take() -> None:
            daemon.listen()
            while socket.poll(0):
                topic, message = socket.recv_multipart()
                if topic == b"decode":
                    self.decodes.setdefault(_validity(message), []).append(message)
                else:
                    self.others[topic.decode()] = json.loads(message)

        def both() -> None:
            source.send_due()
            take()

        wait_until(lambda: len(self.decodes.get("ok", [])) >= 20, both)
        daemon.ask("pause")
        wait_until(lambda: "paused" in self.decodes, both)
        daemon.ask("resume")
        wait_until(lambda: {"heartbeat", "event"} <= set(self.others), both)
        wait_until(lambda: "stale" in self.decodes, take)


def _validity(message: bytes) -> str:
    if message[:4] == b"SLPK":
        return ("ok", "warmup", "stale", "paused", "fault")[message[VALIDITY_AT]]
    return str(json.loads(message)["validity"])


class Composer:
    """Numbers the messages of a run and says after each what a client must answer."""

    def __init__(self) -> None:
        self.steps: list[Fields] = []
        self.state: Fields = {"lost": 0, "skipped": 0, "restarts": 0, "refused": 0}
        self._seq = self._beat = 0

    def number(self, lost: int = 0, skipped: int = 0) -> tuple[int, int]:
        """Go on to the next decode."""
        self._seq += 1 + lost
        self._beat += 1 + lost + skipped
        self.state["lost"] += lost
        self.state["skipped"] += skipped
        return self._seq, self._beat

    def begin(self, seq: int, beat: int) -> None:
        """Begin a run whose next decode has these numbers."""
        self._seq, self._beat = seq - 1, beat - 1
        self.state |= {"lost": 0, "skipped": 0}

    def add(self, name: str, frames: list[Any], answer: Fields | None = None, **more: Any) -> None:
        """Append a message; without an answer the client must say nothing."""
        step: Fields = {"name": name, "frames": frames, **more}
        if answer is not None:
            step["answer"] = self.state | answer
        self.steps.append(step)

    def refuse(self, name: str, body: Any) -> None:
        """Append a message that no client may take for a decode."""
        self.add(name, ["decode", body])
        self.state["refused"] += 1

    def wait(self, name: str, at_least_s: float, answer: Fields) -> None:
        """Append a silence, after which the client must speak by itself."""
        self.steps.append({"name": name, "wait_s": at_least_s, "answer": self.state | answer})


def usable(fields: Fields) -> Fields:
    """The answer to a decode that may be acted on; what holds a null is safe."""
    value = {
        name: SAFE[name] if numbers is None or None in numbers else numbers
        for name, numbers in fields["value"].items()
    }
    return {"usable": True, "why": "", "value": value}


def unusable(why: str, **more: Any) -> Fields:
    """The answer to one that may not."""
    return {"usable": False, "why": why, "value": SAFE, **more}


def compose_json(c: Composer, heard: Recorded) -> None:
    """The first run: decodes as JSON."""
    oks: Iterator[Fields] = (json.loads(one) for one in heard.decodes["ok"])

    def decode(name: str, change: Callable[[Fields], object] | None = None, **more: Any) -> Fields:
        of = more.pop("of", "ok")
        fields = next(oks) if of == "ok" else json.loads(heard.decodes[of][0])
        fields["run_id"] = run_id
        fields["seq"], fields["beat"] = c.number(more.pop("lost", 0), more.pop("skipped", 0))
        if change:
            change(fields)
        expected = more.pop("answer", None) or usable(fields)
        told = {key: fields.get(key) for key in ("seq", "run_id", "validity", "reason")}
        told["late"] = fields.get("late") is True
        c.add(name, ["decode", fields], told | expected, **more)
        return fields

    first = json.loads(heard.decodes["ok"][0])
    run_id = first["run_id"]
    c.begin(first["seq"], first["beat"])
    c.add("a heartbeat before any decode", ["heartbeat", heard.others["heartbeat"]])
    c.add("an event before any decode", ["event", heard.others["event"]])
    decode(
        "not enough input yet",
        lambda f: f.update(validity="warmup", reason="context_short"),
        of="stale",
        answer=unusable("warmup"),
    )
    decode("a decode; it is not the run's first, and nothing was lost")
    decode("the next one")
    decode("three are lost on the way", lost=3)
    decode("the daemon skipped two beats", skipped=2)
    decode("a late one is right, but late", lambda f: f.update(late=True))
    decode("fields that no client knows", lambda f: f.update(colour="red", more={"a": [1, None]}))
    decode("fields that are null", lambda f: f.update(t_newest_spike=None, token_cap=None))
    decode("fields that are gone", lambda f: [f.pop(one) for one in ("late", "units", "value_raw")])
    decode("an output that is null", lambda f: f["value"].update(velocity=None))
    decode("a number that is null", lambda f: f["value"].update(velocity=[1.0, None]))
    decode("the source fell silent", of="stale", answer=unusable("stale"))
    decode("somebody paused it", of="paused", answer=unusable("paused"))
    decode("a decode again")
    decode(
        "a fault for a reason that no client knows",
        lambda f: f.update(validity="fault", reason="of_tomorrow"),
        answer=unusable("fault"),
    )
    decode(
        "a validity that no client knows",
        lambda f: f.update(validity="perhaps"),
        answer=unusable("perhaps"),
    )
    last = decode("a decode after them")
    _other_topics(c, last)
    _not_readable(c, last)
    decode("what was refused is counted")
    decode("stamps of another clock", age_s=ELSEWHERE_S, answer=unusable("future"))
    decode("one that was under way for too long", age_s=OLD_S, answer=unusable("old"))
    last = decode("a fresh one")
    c.wait("no decode: the newest grows old", 0.45, unusable("old", seq=last["seq"]))
    c.wait("nothing at all: the daemon is gone", 2.95, unusable("gone", seq=last["seq"]))
    c.add(
        "a heartbeat: it is not gone",
        ["heartbeat", heard.others["heartbeat"]],
        unusable("old", seq=last["seq"]),
    )
    last = decode("it decodes again")
    c.add(
        "heartbeats alone: it is there, but the newest decode grows old",
        ["heartbeat", heard.others["heartbeat"]],
        unusable("old", seq=last["seq"]),
        every_s=0.4,
        for_s=3.6,
    )


def _other_topics(c: Composer, last: Fields) -> None:
    ahead = last | {"seq": last["seq"] + 50}
    c.add("another topic that begins alike", ["decodes", ahead])
    c.add("a decoder on trial", ["shadow", ahead])
    c.add("a message without a topic", [ahead])
    c.add("a decode with a frame too many", ["decode", ahead, {}])
    c.add("a decode that lacks its frame", ["decode"])


def _not_readable(c: Composer, last: Fields) -> None:
    ahead = last | {"seq": last["seq"] + 50}
    c.refuse("the last one once more", last)
    c.refuse("an earlier one", last | {"seq": last["seq"] - 1})
    c.refuse("a later schema", ahead | {"schema": 2})
    c.refuse("no JSON", {"base64": base64.b64encode(b'{"schema":1,"seq":').decode()})
    c.refuse("bytes that are no text", {"base64": base64.b64encode(b"\xff\xfe{}").decode()})
    c.refuse("an empty message", {"base64": ""})
    c.refuse("a list", {"base64": base64.b64encode(b"[1, 2]").decode()})
    c.refuse("no value", {key: v for key, v in ahead.items() if key != "value"})
    c.refuse("a number where a text should be", ahead | {"validity": 0})
    c.refuse("a text where a number should be", ahead | {"seq": str(ahead["seq"])})


def compose_packed(c: Composer, heard: Recorded, reader: Callable[[bytes], Fields]) -> None:
    """The second run: the daemon was started anew, and its decodes are packed."""
    oks = iter(heard.decodes["ok"])
    first = reader(heard.decodes["ok"][0])

    def decode(name: str, change: Callable[[bytearray], object] | None = None, **more: Any) -> None:
        of = more.pop("of", "ok")
        message = bytearray(next(oks) if of == "ok" else heard.decodes[of][0])
        seq, beat = c.number(more.pop("lost", 0), more.pop("skipped", 0))
        struct.pack_into("<2q", message, SEQ_AT, seq, beat)
        if change:
            change(message)
        fields = reader(bytes(message))
        expected = more.pop("answer", None) or usable(fields)
        told = {key: fields[key] for key in ("seq", "validity", "reason", "late")}
        body = {"base64": base64.b64encode(message).decode()}
        c.add(name, ["decode", body], told | {"run_id": first["run_id"]} | expected, **more)

    def damaged(damage: Callable[[bytearray], bytes]) -> Fields:
        message = bytearray(heard.decodes["ok"][-1])
        struct.pack_into("<2q", message, SEQ_AT, 10**6, 10**6)
        return {"base64": base64.b64encode(damage(message)).decode()}

    c.begin(first["seq"], first["beat"])
    c.state["restarts"] += 1
    decode("packed, of a new run: the daemon was started anew")
    decode("the next one, packed")
    decode("four are lost on the way, packed", lost=4)
    decode("late, packed", lambda m: m.__setitem__(FLAGS_AT, 1))
    decode("flags of tomorrow", lambda m: m.__setitem__(FLAGS_AT, 0xF0))
    decode("paused, packed", of="paused", answer=unusable("paused"))
    decode("stale, packed", of="stale", answer=unusable("stale"))
    decode("a reason of tomorrow, packed", _fault, answer=unusable("fault"))
    decode("an output that is null, packed", _no_velocity)
    c.refuse("cut off in its head", damaged(lambda m: bytes(m[:60])))
    c.refuse("cut off at its end", damaged(lambda m: bytes(m[:-1])))
    c.refuse("too long", damaged(lambda m: bytes(m) + b"}"))
    c.refuse("a later version", damaged(lambda m: bytes(m[:4]) + b"\x02" + bytes(m[5:])))
    c.refuse("a validity of tomorrow", damaged(lambda m: bytes(m[:5]) + b"\x09" + bytes(m[6:])))
    c.refuse("the magic alone", damaged(lambda m: bytes(m[:4])))
    c.refuse("a text that is damaged", damaged(lambda m: bytes(m[:-1]) + b"]"))
    c.refuse(
        "a text that does not fit", damaged(lambda m: m.replace(b'"velocity":2', b'"velocity":3'))
    )
    decode("a longer head", _longer_head)


def _fault(message: bytearray) -> None:
    message[VALIDITY_AT], message[REASON_AT] = 4, 200


def _no_velocity(message: bytearray) -> None:
    struct.pack_into("<2d", message, struct.unpack_from("<H", message, 8)[0], *[float("nan")] * 2)


def _longer_head(message: bytearray) -> None:
    head = struct.unpack_from("<H", message, 8)[0]
    message[head:head] = b"\x07" * 16
    struct.pack_into("<H", message, 8, head + 16)


def main() -> None:
    """Record and write."""
    from streams.wire.packed import MessageReader

    composer = Composer()
    with tempfile.TemporaryDirectory() as folder:
        compose_json(composer, Recorded(Path(folder), "json"))
        compose_packed(composer, Recorded(Path(folder), "packed"), MessageReader().read)
    lines = [json.dumps(step, separators=(",", ":")) + "\n" for step in composer.steps]
    STREAM.write_text("".join(lines))


if __name__ == "__main__":
    main()
