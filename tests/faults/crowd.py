"""Subscribers that come and go, by the thousand: `python -m tests.faults.crowd ENDPOINT N`."""

from __future__ import annotations

import sys
import threading

import zmq

N_THREADS = 4


def come_and_go(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, n: int) -> None:
    for i in range(n):
        socket = context.socket(zmq.SUB)
        socket.linger = 0
        socket.subscribe(("decode", "", "heartbeat")[i % 3])
        socket.connect(endpoint)
        # Some stay for a decode, some are gone before they are known.
        socket.poll((0, 40)[i % 2])
        socket.close()


def main(endpoint: str, n: int) -> None:
    context = zmq.Context[zmq.Socket[bytes]]()
    crowd = [
        threading.Thread(target=come_and_go, args=(context, endpoint, n // N_THREADS))
        for _ in range(N_THREADS)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    context.term()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
