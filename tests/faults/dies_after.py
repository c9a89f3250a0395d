"""A daemon that is killed just after it has sent so many decodes, before it does anything else.

Imported before `spikeloop` starts; `SPIKELOOP_DIES_AFTER` says after how many. It happens once:
those who follow live on.
"""

from __future__ import annotations

import mmap
import os
import signal
import time

from streams.wire.sockets import Publisher

DIES_AFTER, DELIVERED_S = "SPIKELOOP_DIES_AFTER", 0.1


def die_after(n_decodes: int) -> None:
    """Let the first process that has sent so many be killed then."""
    n_left, has_died = n_decodes, mmap.mmap(-1, 1)  # shared with the processes forked later
    own_send = Publisher.send

    def send(self: Publisher, topic: bytes, payload: bytes) -> None:
        nonlocal n_left
        own_send(self, topic, payload)
        n_left -= topic == b"decode"
        if not n_left and not has_died[0]:
            has_died[0] = 1
            time.sleep(DELIVERED_S)
            os.kill(os.getpid(), signal.SIGKILL)

    Publisher.send = send  # type: ignore[method-assign]


if DIES_AFTER in os.environ:  # not in the tests' own process, where it would stay
    die_after(int(os.environ[DIES_AFTER]))
