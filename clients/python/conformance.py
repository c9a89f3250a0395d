"""Print this client's answers, one JSON line each. Usage: conformance.py ENDPOINT STALE_S."""

import json
import sys

from spikeloop_client import SpikeloopClient

FIELDS = (
    "value", "usable", "why", "seq", "run_id", "validity", "reason", "late",
    "lost", "skipped", "restarts", "refused",
)  # fmt: skip

client = SpikeloopClient(sys.argv[1], safe={"velocity": [0.0, 0.0]}, stale_s=float(sys.argv[2]))
for answer in client:
    sys.stdout.write(json.dumps({name: getattr(answer, name) for name in FIELDS}) + "\n")
    sys.stdout.flush()
