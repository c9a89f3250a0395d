"""The guardian alone, around a run that does nothing but hang."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.config import ServeConfig
from service.daemon import guardian
from service.daemon.guardian import POLL_S, STARVED_MOST_S, _next_config, _Watch
from service.daemon.lifeline import LastWords, Lifeline, Phase
from service.notify import Supervisor
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


class Late:
    """A guardian's watch over a daemon that is late, and looks by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._t_s, self._is_starved = 1000.0, False
        monkeypatch.setattr(guardian, "_is_starved", lambda *_: self._is_starved)
        monkeypatch.setattr(guardian, "_is_stopped", lambda pid: False)
        self.lifeline = Lifeline()
        self.lifeline.reach(Phase.RUNNING, self._t_s, "a step")
        self.watch = _Watch(os.getpid(), self.lifeline, self, Supervisor.of())

    def now(self) -> float:
        return self._t_s

    def sleep_until(self, t_s: float) -> None:
        self._t_s = t_s

    def spin_until(self, t_s: float) -> None:
        self._t_s = t_s

    def for_s(self, seconds: float, *, is_starved: bool) -> str:
        """Look for so long; what the daemon is ended for."""
        self._is_starved = is_starved
        for _ in range(round(seconds / POLL_S)):
            self._t_s += POLL_S
            self.watch._look()
        return self.watch.complaint


def test_a_daemon_that_was_starved_is_given_its_time_once_it_may_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = Late(monkeypatch)
    assert not late.for_s(1.0, is_starved=True)
    # It is in again: no thread waits for a core, and it has not yet had the time to get further.
    assert not late.for_s(0.1, is_starved=False)
    assert late.for_s(0.2, is_starved=False) == "a step did not return after beat 0"


def test_a_daemon_that_never_gets_a_core_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late(monkeypatch)
    assert not late.for_s(STARVED_MOST_S - 0.1, is_starved=True)
    assert late.for_s(0.2, is_starved=True)


def test_a_daemon_that_gets_further_while_it_is_judged_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = Late(monkeypatch)
    words: Callable[[], LastWords] = late.lifeline.last_words

    def meanwhile() -> LastWords:
        late.lifeline.beat_over(late.now() - 1e-3)
        return words()

    monkeypatch.setattr(late.lifeline, "last_words", meanwhile)
    assert not late.for_s(5.0, is_starved=False)
