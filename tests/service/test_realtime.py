"""What the operating system does not permit is said, and is no failure."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from service.daemon.realtime import apply

UNPRIVILEGED = """
import json, os, resource
from service.daemon.realtime import apply
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.getuid() == 0:
    os.setuid(65534)
print(json.dumps(list(apply(50, (4095,), lock_memory=True))))
"""


def test_nothing_is_asked_for_by_default() -> None:
    assert list(apply()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
def test_what_is_not_permitted_is_said_with_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, check=True
    )
    told = {what: (holds, said) for what, holds, said in json.loads(done.stdout)}
    assert set(told) == {"priority", "cores", "lock_memory"}
    assert not any(holds for holds, _ in told.values())
    assert "SCHED_FIFO 50 is not permitted" in told["priority"][1]
    assert "limits.conf" in told["priority"][1]
    assert "[4095]" in told["cores"][1]
    assert "`memlock`" in told["lock_memory"][1]


CARRIERS = """
import json, os, threading
from service.daemon.realtime import lift_carriers
from streams.wire.sockets import Publisher
wait = threading.Event()
ingest, other = (threading.Thread(target=wait.wait, name=name) for name in ("ingest", "control"))
ingest.start(), other.start()
publisher = Publisher("tcp://127.0.0.1:*")
holds, said = lift_carriers(7, ingest)
python = {thread.native_id for thread in threading.enumerate()}
tasks = [int(task) for task in os.listdir("/proc/self/task")]
priority = {task: os.sched_getparam(task).sched_priority for task in tasks}
wait.set()
publisher.close()
print(json.dumps({
    "holds": holds, "said": said, "ingest": priority[ingest.native_id],
    "python": [priority[task] for task in python - {ingest.native_id}],
    "others": [priority[task] for task in tasks if task not in python],
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are told by /proc")
def test_those_who_carry_get_the_priority_and_nobody_else() -> None:
    done = subprocess.run([sys.executable, "-c", CARRIERS], capture_output=True, text=True)
    told = json.loads(done.stdout)
    if not told["holds"]:
        pytest.skip(told["said"])
    assert told["ingest"] == 7
    assert set(told["python"]) == {0}
    assert len(told["others"]) >= 2
    assert set(told["others"]) == {7}
