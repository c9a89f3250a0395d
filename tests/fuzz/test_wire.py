"""What a client reads, and what a daemon takes for a command: any bytes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec

from streams.errors import WireError
from streams.wire.packed import MessageReader
from streams.wire.schema import decode_command, decode_reply
from tests.fuzz.mutations import altered, fuzz, mutated
from tests.fuzz.sentences import check_refusal

GOLDEN = Path(__file__).parents[1] / "streams" / "golden"
MESSAGES = [path.read_bytes() for path in sorted(GOLDEN.iterdir())]
JSON = {path.stem: path.read_bytes() for path in sorted(GOLDEN.glob("*.json"))}


@fuzz()
def test_bytes_that_a_client_reads(rng: Random) -> None:
    payload = mutated(rng, MESSAGES)
    check_refusal(lambda: MessageReader().read(payload), WireError)


@fuzz()
def test_bytes_for_commands_and_replies(rng: Random) -> None:
    payload = mutated(rng, [JSON["command"], JSON["reply"]])
    check_refusal(lambda: decode_command(payload), WireError)
    check_refusal(lambda: decode_reply(payload), WireError)


@fuzz()
def test_commands_with_odd_fields(rng: Random) -> None:
    content = altered(rng, msgspec.json.decode(JSON["command"]))
    try:
        payload = msgspec.json.encode(content)
    except (OverflowError, UnicodeEncodeError, ValueError):  # none that JSON can say
        return
    check_refusal(lambda: decode_command(payload), WireError)
