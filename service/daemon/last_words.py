"""Publish the safe value in a hung daemon's place, for a moment."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from service.daemon.lifeline import LastWords, Reading
from service.loop.validity import REASONS
from streams.clock import MonotonicClock
from streams.errors import AddressError
from streams.wire.clients import AllowedClients, Client
from streams.wire.curve_keys import read_curve_keys
from streams.wire.packed import decode_writer
from streams.wire.roles import Role
from streams.wire.schema import Decode, Event, Reply, encode
from streams.wire.sockets import ControlServer, Publisher

SPOKEN_S = 1.0
"""Every subscriber has come back by then, and has heard it."""
BOUND_WITHIN_S = 2.0
HUNG = "hung"


def speak(words: LastWords, reading: Reading, error: str, *, keys: str, fallback: str) -> None:
    """Publish the safe value with `fault`, `hung` every hop for a second, and decline commands.

    Args:
        words: the daemon's.
        reading: how far it was.
        error: what happened.
        keys: the file of its CURVE keys; "" for none.
        fallback: the backend that goes on; "" where none does.
    """
    clock = MonotonicClock()
    if words.newest is None:
        return
    curve_keys = read_curve_keys(Path(keys)) if keys else None
    listed = (Client(name, Role(role), key) for name, role, key in words.clients)
    clients = AllowedClients(listed) if curve_keys else None
    publisher = control = None
    t_end_s = clock.now() + BOUND_WITHIN_S
    while publisher is None or control is None:
        try:
            publisher = publisher or Publisher(words.decode, curve_keys, clients=clients)
            control = control or ControlServer(words.control, curve_keys, clients)
        except AddressError:  # the killed process may not have let go yet
            if clock.now() > t_end_s:
                raise
            clock.sleep_until(clock.now() + 2e-3)
    write = decode_writer(words.form, words.dims)
    newest, seq, k = words.newest, reading.seq, reading.beat
    t_begun_s, k_begun = newest.t_window, newest.beat
    declined = encode(Reply(ok=False, error=f"the daemon is gone: {error}"))
    t_s = clock.now()
    t_end_s = t_s + SPOKEN_S
    while t_s < t_end_s:
        seq += 1
        k = max(k + 1, k_begun + int((t_s - t_begun_s) / words.hop_s))
        t_window = t_begun_s + (k - k_begun) * words.hop_s
        publisher.send(b"decode", write(_safe(words, newest, seq, k, t_window, t_s)))
        if control.receive(words.hop_s) is not None:
            control.reply(declined)
        t_next = t_s + words.hop_s
        clock.sleep_until(min(t_next, t_end_s))
        t_s = clock.now()
    detail = {"error": error, "fallback": fallback}
    event = Event(run_id=newest.run_id, t_sent=t_s, event=HUNG, detail=detail)
    publisher.send(b"event", encode(event))
    with contextlib.suppress(AddressError):
        publisher.close()
        control.close()


def _safe(
    words: LastWords, newest: Decode, seq: int, k: int, t_window: float, t_s: float
) -> Decode:
    return msgspec.structs.replace(
        newest, seq=seq, beat=k, t_window=t_window, t_done=t_s, t_sent=t_s, t_cut=t_s,
        validity=REASONS[HUNG].name.lower(), reason=HUNG, late=False, tokens=0,
        value={name: value and [*value] for name, value in words.safe.items()},
        value_raw=dict.fromkeys(newest.value_raw),
    )  # fmt: skip
