"""Print what may be acted on. Usage: python follow.py [ENDPOINT]."""

import sys

from spikeloop_client import SpikeloopClient  # beside this file

with SpikeloopClient(*sys.argv[1:2], safe={"velocity": [0.0, 0.0]}) as client:
    for answer in client:
        told = answer.why or "use it"
        sys.stdout.write(f"{answer.seq} {told}: {answer.value['velocity']} lost {answer.lost}\n")
        if answer.why == "gone":
            sys.exit("nothing heard for 3 s: stop whatever the decodes move")
