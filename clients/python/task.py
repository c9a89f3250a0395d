"""A task program: move a cursor with spikeloop's decodes, and stop whenever they cannot be trusted.

Needs only pyzmq, and `spikeloop_client.py` beside it. Usage: python task.py [ENDPOINT]; on the
daemon's own machine, because a decode's age is taken on the clock that both share.

1. Only a decode whose validity is `ok` moves the cursor; with any other its velocity is zero.
2. So is it when the newest decode is older than 0.1 s, and a velocity is never used twice as long.
3. A hole in `seq` is told: the network lost messages between the daemon and this program.
4. When nothing is heard for 3 s (a heartbeat comes every second) the task ends with an error.
"""

import sys
import time

from spikeloop_client import Answer, SpikeloopClient

FRAME_S = 1 / 60
OUTPUT = "velocity"
WHY = {"none": "no decode yet", "old": "the newest decode is too old"}


class Task:
    """The cursor, and what was told last."""

    def __init__(self) -> None:
        self.position = [0.0, 0.0]
        self.said = ""
        self.lost = 0

    def frame(self, answer: Answer, seconds: float) -> None:
        """Move the cursor for the time that went by, at most two frames of it."""
        if answer.lost > self.lost:
            self.say(f"{answer.lost - self.lost} decodes lost on the way")
        self.lost = answer.lost
        if answer.usable:
            self.say("moving")
        else:
            reason = f" ({answer.reason})" if answer.reason not in ("", answer.why) else ""
            self.say(f"stopped: {WHY.get(answer.why, answer.why)}{reason}")
        for i, speed in enumerate(answer.value[OUTPUT] or ()):
            self.position[i] += speed * min(seconds, 2 * FRAME_S)

    def say(self, line: str) -> None:
        """Tell the operator, once."""
        if line != self.said:
            self.said = line
            sys.stdout.write(f"{line}; cursor at {self.position}\n")
            sys.stdout.flush()


def main() -> None:
    """Run until the daemon falls silent."""
    task, t_frame = Task(), time.monotonic()
    with SpikeloopClient(*sys.argv[1:2], safe={OUTPUT: [0.0, 0.0]}, stale_s=0.1) as client:
        while (answer := client.update()).why != "gone":
            now = time.monotonic()
            task.frame(answer, now - t_frame)
            t_frame = now
            time.sleep(max(0.0, now + FRAME_S - time.monotonic()))
    sys.exit("nothing heard for 3 s: the daemon or the way to it is gone; stopped")


if __name__ == "__main__":
    main()
