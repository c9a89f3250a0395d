"""Every validity, reason and fate has words, and status and watch say them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service.cli.talk import SMALL, SUCCESSION
from service.client import answer
from service.loop.validity import REASONS, VALIDITIES
from service.terminal import status as status_screen
from service.terminal import watch
from service.terminal.live_lines import LiveLines
from service.words import (
    COLOURS,
    EVENTS,
    FATES,
    event_in_words,
    fates_in_words,
    reason_and_remedy,
    reason_in_words,
    seconds_in_words,
)
from service.words import REASONS as WORDS
from service.words import VALIDITIES as VALIDITY_WORDS
from streams.spikes.ring import Fates
from streams.wire.schema import Reply

WIRE = Path(__file__).parents[2] / "docs" / "wire.md"
GOLDEN = Path(__file__).parents[1] / "streams" / "golden"


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return found


def drawn(lines: LiveLines, now_s: float, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(lines.drawn(now_s))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_reason_and_validity_has_words() -> None:
    assert set(WORDS) == set(REASONS)
    assert set(VALIDITY_WORDS) == set(COLOURS) == set(VALIDITIES.values())


@pytest.mark.parametrize("event", EVENTS)
def test_events_of_the_wire_are_told_by_their_fields(event: str) -> None:
    """The fields that the words name stand in the wire's table."""
    _, _, events = WIRE.read_text().partition("| event | detail | when |")
    (row, *_) = re.findall(rf"^\| `{event}` \|.*$", events, re.MULTILINE)
    named = re.findall(r"{(\w+)", EVENTS[event])
    assert all(f"`{name}`" in row or name == "decoder_id" for name in named)


def test_events_are_told_in_words() -> None:
    assert event_in_words("promote", {"decoder_id": "mine", "checksum": "9c"}) == (
        "mine is in service"
    )
    assert event_in_words("settled", {"settle_ms": 9.3, "warning": "it grew"}) == "it grew"
    assert event_in_words("moonlight", {"full_ms": 0.12345, "checksum": "9c"}) == "full ms 0.123"
    assert event_in_words("settled", {"settle_ms": None}) == ""


def test_every_fate_but_used_has_words() -> None:
    assert set(FATES) | {"used"} == set(Fates().as_dict())


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_words_are_plain(reason: str) -> None:
    told = reason_in_words(reason, 0.3)
    assert "_" not in re.sub("`.*?`", "", told)
    assert "{" not in told
    assert told[0].islower()
    assert not told.endswith(".")


def test_silence_is_told_where_it_is_known() -> None:
    asked = "is the amplifier's program running?"
    assert reason_in_words("no_spikes", 0.3) == f"no spikes for 0.3 s: {asked}"
    assert reason_in_words("no_spikes") == f"no spikes: {asked}"
    assert reason_in_words("keep_alives_missed", 12.2).startswith(
        "the source has said nothing for 12 s"
    )


def test_a_later_daemons_reason_stays_as_it_is() -> None:
    assert reason_in_words("moonlight", 0.3) == "moonlight"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.34, "0.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (245, "4 min 5 s"),
        (7380, "2 h 3 min"),
        (3 * 86400 + 3600, "3 d 1 h"),
    ],
)
def test_lengths_of_time(seconds: float, told: str) -> None:
    assert seconds_in_words(seconds) == told


def test_small_shares_do_not_look_like_none() -> None:
    assert fates_in_words({"late": 0.0002, "future": 0.0, "invalid": 0.1}) == (
        "under 0.1 % too late, 10 % damaged"
    )


def test_watch_tells_validity_value_age_rate_and_misses() -> None:
    lines = LiveLines("tcp://127.0.0.1:1", 0.0, same_clock=True)
    assert "waiting for decodes from tcp://127.0.0.1:1 for 2.0 s" in drawn(lines, 2.0)
    decode = golden("decode")
    ok = decode | {"validity": "ok", "reason": "", "late": False}
    for i in range(1, 101):
        seq = i + (i > 50)  # one is lost on the way
        one = ok | {"seq": seq, "t_window": i * 0.02, "t_sent": i * 0.02 + 0.005, "late": i == 90}
        lines.take("decode", one, i * 0.02 + 0.006)
    lines.take("heartbeat", golden("heartbeat") | {"hop_ms": 20.0}, 2.0)
    text = drawn(lines, 2.01)
    assert "decoding" in text
    assert "6.0 ms when it comes; when sent 5.0" in text
    assert "50.0 of 50 decodes a second" in text
    assert "1 late, 0 skipped, 1 lost on the way" in text


def test_watch_says_what_to_do_when_it_is_not_ok_and_when_nothing_comes() -> None:
    lines = LiveLines("tcp://127.0.0.1:1", 0.0, same_clock=True)
    stale = {"validity": "stale", "reason": "no_spikes", "t_sent": 10.0, "t_newest_spike": 9.6}
    lines.take("decode", golden("decode") | stale, 1.0)
    told = [line.strip() for line in drawn(lines, 1.1).splitlines()]
    assert {"no spikes for 0.4 s", "is the amplifier's program running?"} <= set(told)
    assert "no decode for 2.0 s" in drawn(lines, 3.0)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("reason", sorted(set(REASONS) - {""}))
def test_watch_tells_what_is_wrong_apart_from_what_to_do(reason: str, width: int) -> None:
    lines = LiveLines("tcp://127.0.0.1:1", 0.0, same_clock=True)
    fault = {"validity": VALIDITIES[reason], "reason": reason}
    lines.take("decode", golden("decode") | fault, 1.0)
    text = drawn(lines, 1.1, width).splitlines()
    _, remedy = reason_and_remedy(reason)
    if remedy:
        assert any(line.strip().startswith(remedy[:40]) for line in text)
    # Each number and its bar have a line of their own, however narrow the terminal is.
    assert sum("│" in line and line.rstrip().endswith("cm/s") for line in text) == 2


def test_watch_in_a_pipe_says_a_reason_once_and_in_one_line() -> None:
    decode = golden("decode")
    wrong = {"validity": "fault", "reason": "unknown_units"}
    heard = [decode | wrong, decode | wrong, decode | {"validity": "ok", "reason": ""}]
    console = Console(file=io.StringIO(), width=40)
    watch._print_lines(
        Heard([("decode", one) for one in heard]), "", console, as_json=False, count=3
    )
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    told = [reason_in_words("unknown_units"), reason_in_words("")]
    assert [line for line in lines if " tokens " not in line] == told
    assert len(lines) == 5


class Heard:
    """A subscriber that has received all of it."""

    def __init__(self, messages: list[tuple[str, dict[str, Any]]]) -> None:
        self._messages = messages

    def receive(self, within_s: float) -> tuple[str, dict[str, Any]] | None:
        return self._messages.pop(0) if self._messages else None


@pytest.mark.parametrize("command", [*SMALL, *SUCCESSION])
def test_commands_answer_in_a_sentence(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "status":
        return
    assert answer(command, Reply(ok=True, result={"checksum": "9c1e" * 16}), as_json=False) == 0
    told = capsys.readouterr().out
    assert told.strip()
    assert not re.search(r"[_│┃{}]", told)


def test_shape_answers_what_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    told = ADDED["shaping"] | {"lead_s": 0.1}
    assert answer("shape", Reply(ok=True, result=told), as_json=False) == 0
    expected = "from the next beat on: gain 1.2, bounds position -20 20; 100 ms ahead"
    assert " ".join(capsys.readouterr().out.split()) == expected


def test_watch_counts_anew_in_another_run() -> None:
    lines = LiveLines("tcp://127.0.0.1:1", 0.0, same_clock=True)
    decode = golden("decode")
    lines.take("decode", decode | {"run_id": "a", "seq": 5000, "late": True}, 1.0)
    lines.take("decode", decode | {"run_id": "b", "seq": 1, "late": False}, 1.1)
    lines.take("decode", decode | {"run_id": "b", "seq": 2, "late": False}, 1.2)
    assert "0 late, 0 skipped, 0 lost on the way" in drawn(lines, 1.3)


def test_watch_shows_marks_and_warnings() -> None:
    lines = LiveLines("tcp://127.0.0.1:1", 0.0, same_clock=False)
    lines.take("decode", golden("decode"), 1.0)
    lines.take("event", golden("event") | {"event": "mark", "detail": {"text": "block [2]"}}, 1.0)
    assert "mark: block [2]" in drawn(lines, 3.0)


ADDED: dict[str, Any] = {
    "paused": False,
    "decode_endpoint": "tcp://127.0.0.1:5570",
    "source": "amplifier (Spikes, 2 channels)",
    "units_known": 90,
    "units_seen": 96,
    "library": "numba 0.65",
    "backend_choice": {},
    "refused_backends": {},
    "spare_backend": "onnxruntime-cpu",
    "health": {"seconds": 60.0, "dead": ["ch1/u1"], "changed": [], "judged": 90, "share": 0.01}
    | {"recalibration_advised": False},
    "shaping": {"gain": 1.2, "smoothing": 0.0, "bias": [], "speed_power": 1.0, "speed_ref": 1.0}
    | {"max_speed": 0.0, "bounds": {"position": [-20, 20]}},
    "lead_s": 0.1,
    "shadow": "",
    "standby": "",
}


def test_status_is_words_and_no_raw_clocks() -> None:
    heartbeat = golden("heartbeat")
    told = dict(status_screen.rows(heartbeat | ADDED | {"validity": "fault", "reason": "hung"}))
    assert "fault" in told["now"]
    text = " ".join(told.values())
    assert str(heartbeat["t_sent"]) not in text
    assert "the decoder knows 90 of them" in told["source"]
    assert told["units"] == "1 silent (ch1/u1)"
    assert told["shaping"] == "gain 1.2, bounds position -20 20"
    assert "100 ms ahead" in told["decoder"]


def test_status_of_a_run_that_just_began() -> None:
    young = {"decode_ms": {}, "spikes_in": 0, "settling": True, "cut_shares": {}, "spikes_lost": 0}
    health = {"health": ADDED["health"] | {"judged": 0}}
    told = dict(status_screen.rows(golden("heartbeat") | ADDED | young | health))
    assert told["a decode takes"] == "not known yet"
    assert told["spikes"] == "none yet"
    assert "units" not in told
