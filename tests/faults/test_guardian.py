"""The guardian alone, around a run that does nothing but hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.config import ServeConfig
from service.daemon.guardian import _next_config
from service.daemon.lifeline import LastWords
from service.signals import ending_signals

GOLDEN = Path(__file__).parents[1] / "streams" / "golden" / "decode.json"
GUARDED = """
import sys
from pathlib import Path

import msgspec

from service.config import ServeConfig
from service.daemon.guardian import guard
from service.daemon.lifeline import Phase
from streams.clock import MonotonicClock
from streams.wire.schema import Decode

clock = MonotonicClock()


def run(config, lifeline, hung):
    print("again" if hung else "first", flush=True)
    bound = {"decode": "tcp://127.0.0.1:*", "control": "tcp://127.0.0.1:*"}
    newest = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Decode)
    lifeline.say(backend="one", after=("other",), hop_s=0.01, newest=newest, **bound)
    if not hung:
        lifeline.reach(Phase.RUNNING, clock.now(), "a step")
    while True:
        clock.sleep_until(clock.now() + 1.0)


config = ServeConfig(decoder={"bundle": "none", "backend": "one", "fallback": ("other",)})
sys.exit(guard(run, config))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a guardian")
@pytest.mark.parametrize("number", [*ending_signals()])
def test_a_signal_during_the_last_words_ends_it_and_no_fallback_begins(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GUARDED, str(GOLDEN)], stdout=subprocess.PIPE, text=True
    ) as guardian:
        assert guardian.stdout is not None
        assert guardian.stdout.readline() == "first\n"
        first = child_of(guardian.pid)
        while child_of(guardian.pid) in (first, 0):  # until the last words are spoken
            assert guardian.poll() is None
        guardian.send_signal(number)
        try:
            said, _ = guardian.communicate(timeout=10.0)
        except subprocess.TimeoutExpired:
            guardian.send_signal(number)
            raise
    assert said == ""
    assert guardian.returncode == 1


def child_of(pid: int) -> int:
    """Return a process's child that lives; 0 for none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[-1]) if children else 0


@pytest.mark.parametrize(
    ("run_id", "simulated", "may_simulate"),
    [("", False, True), ("a", True, True), ("a", False, False)],
)
def test_nobody_is_simulated_where_a_person_was_decoded(
    run_id: str, simulated: bool, may_simulate: bool
) -> None:
    config = ServeConfig.model_validate({"input": {"simulate_if_absent": True}})
    words = LastWords(backend="one", after=("other",), run_id=run_id, simulated=simulated)
    follower = _next_config(config, words)
    assert follower is not None
    assert follower.input.simulate_if_absent is may_simulate
