"""Follow spikeloop's decodes; needs only pyzmq. Usage: python client.py [ENDPOINT]."""

import sys

import zmq
from packed import read_decode  # beside this file; for JSON alone it is `json.loads`

socket = zmq.Context().socket(zmq.SUB)
socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5570")
socket.subscribe("")
before = None
while socket.poll(3000):  # a heartbeat comes every second: three missed, and the daemon is gone
    topic, message = socket.recv_multipart()
    if topic == b"decode":
        now = read_decode(message)
        if before and now["run_id"] == before["run_id"] and now["seq"] > before["seq"] + 1:
            sys.stdout.write(f"{now['seq'] - before['seq'] - 1} decodes lost on the way\n")
        value, before = now["value"] if now["validity"] == "ok" else "stop", now
        sys.stdout.write(f"{now['t_window']:.3f} {value} skipped {now['beats_skipped']}\n")
sys.exit("nothing heard for 3 s: stop whatever the decodes move")
