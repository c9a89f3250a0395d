"""A task program: move a cursor with spikeloop's decodes, and stop whenever they cannot be trusted.

Needs only pyzmq, and `packed.py` beside it. Usage: python task.py [ENDPOINT]; on the daemon's own
machine, because a decode's age is taken on the clock that both share. It holds to four rules:

1. Only a decode whose validity is `ok` moves the cursor; with any other its velocity is zero.
2. So is it when the newest decode is older than 0.1 s, and a velocity is never used twice as long.
3. A hole in `seq` is told: the network lost messages between the daemon and this program.
4. When nothing is heard for 3 s (a heartbeat comes every second) the task ends with an error.
"""

import sys
import time

import zmq
from packed import read_decode

FRAME_S = 1 / 60
OLDEST_S = 0.1
SILENT_S = 3.0
OUTPUT = "velocity"


class Task:
    """The cursor, and the newest that is known of the decoder."""

    def __init__(self) -> None:
        self.position = [0.0, 0.0]
        self.decode: dict | None = None
        self.t_heard = time.monotonic()
        self.said = ""

    def hear(self, topic: bytes, message: dict) -> None:
        """Take in one message of the daemon."""
        self.t_heard = time.monotonic()
        if topic == b"decode":
            before, self.decode = self.decode, message
            if before and before["run_id"] == message["run_id"]:
                lost = message["seq"] - before["seq"] - 1
                if lost > 0:
                    self.say(f"{lost} decodes lost on the way")
        elif topic == b"event" and message["event"] in ("backend_failed", "fell_back"):
            self.say(f"{message['event']}: {message['detail']}")

    def velocity(self) -> list[float]:
        """What may move the cursor now."""
        now = self.decode
        if now is None:
            self.say("no decode yet")
        elif now["validity"] != "ok":
            self.say(f"stopped: {now['validity']} ({now['reason']})")
        elif time.monotonic() - now["t_window"] > OLDEST_S:
            self.say("stopped: the newest decode is too old")
        else:
            self.say(f"moving, decoded by {now['backend']} in {now['precision']}")
            return now["value"][OUTPUT]
        return [0.0, 0.0]

    def frame(self, seconds: float) -> None:
        """Move the cursor for the time that went by, at most two frames of it."""
        for i, speed in enumerate(self.velocity()):
            self.position[i] += speed * min(seconds, 2 * FRAME_S)

    def say(self, line: str) -> None:
        """Tell the operator, once."""
        if line != self.said:
            self.said = line
            sys.stdout.write(f"{line}; cursor at {self.position}\n")
            sys.stdout.flush()


def main() -> None:
    """Run until the daemon falls silent."""
    socket = zmq.Context().socket(zmq.SUB)
    socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5570")
    for topic in (b"decode", b"heartbeat", b"event"):
        socket.subscribe(topic)
    task, t_frame = Task(), time.monotonic()
    while time.monotonic() - task.t_heard < SILENT_S:
        until_s = t_frame + FRAME_S - time.monotonic()
        if until_s > 0 and socket.poll(1000 * until_s):
            topic, message = socket.recv_multipart()
            task.hear(topic, read_decode(message))
            continue
        now = time.monotonic()
        task.frame(now - t_frame)
        t_frame = now
    sys.exit(f"nothing heard for {SILENT_S:g} s: the daemon or the way to it is gone; stopped")


if __name__ == "__main__":
    main()
