"""The guardian: a process that watches the daemon, and acts when it does not get further.

Native code that hangs may hold the interpreter's lock, and then no thread of the process can do
anything. So `serve` forks: the child is the daemon, the parent its guardian. The parent runs no
native code of others, opens no socket but systemd's, and can always be stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from export.errors import BackendUnavailable
from service.config import ServeConfig
from service.daemon.last_words import speak
from service.daemon.lifeline import NO_LIMIT, LastWords, Lifeline, Phase, Reading
from service.errors import HANDLED, GuardError, exit_code
from service.guard import Guard
from service.logs import end_log
from service.notify import Supervisor
from service.signals import ending_signals
from streams.clock import Clock, MonotonicClock
from streams.wire.sockets import end_sockets

POLL_S = 0.02
HELD_UP_MOST_S, HELD_UP_HOPS = 0.2, 3.0
"""Longest time by which a beat may be overdue. With subscribers that connect again after 0.1 to
0.2 s the safe value is there within half a second."""
STARVED_MOST_S = 2.0
"""The same for a daemon that wants to run and gets no processor: it does not hang."""
LOCK_HELD_MOST_S = 30.0
"""At the start no Python thread runs for so long at most: imports of large libraries take some."""
ENDS_WITHIN_S = {Phase.STARTING: 2.0, Phase.RUNNING: 8.0, Phase.ENDING: 8.0}
REAPED_WITHIN_S = 1.0
_PR_SET_PDEATHSIG = 1
_FROM_KERNEL = 0x80

Run = Callable[[ServeConfig, Lifeline, Mapping[str, str]], None]


def guard(run: Run, config: ServeConfig) -> int:
    """Run a daemon in a process of its own, and watch it; return its exit code.

    Args:
        run: runs it, given the config, its lifeline, and the backends that hung before.
        config: the daemon's.

    Raises:
        GuardError: it hung, and no fallback is listed.
        BackendUnavailable: the same while it started.
    """
    if sys.platform != "linux":
        run(config, Lifeline(), {})
        return 0
    hung: dict[str, str] = {}
    run_before = ""
    supervisor = Supervisor.of()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _waited_for())
    try:
        while True:
            lifeline = Lifeline(run_before)
            pid = os.fork()
            if pid == 0:
                _be_the_daemon(run, config, lifeline, hung)
            watch = _Watch(pid, lifeline, MonotonicClock(), supervisor)
            if (code := watch.until_over()) is not None:
                return code
            words = lifeline.last_words()
            follower = _next_config(config, words)
            if watch.reading.phase is Phase.RUNNING:
                fallback = follower.decoder.backend if follower else ""
                is_asked = _in_process(partial(speak, words, watch.reading, watch.complaint,
                                               keys=config.output.keys, fallback=fallback),
                                       supervisor)  # fmt: skip
                if is_asked:
                    return 1
            if follower is None:
                raise _failure(watch)
            hung[words.backend or config.decoder.backend] = watch.complaint
            config = follower
            run_before = words.run_id or run_before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _failure(watch: _Watch) -> GuardError | BackendUnavailable:
    if watch.reading.phase is Phase.STARTING:
        return BackendUnavailable(f"{watch.complaint}; list another one under `fallback`")
    return GuardError(f"the daemon is gone: {watch.complaint}")


def _next_config(config: ServeConfig, words: LastWords) -> ServeConfig | None:
    """Return the config without the backend that hung; None if no other one is listed."""
    left = words.after if words.backend else config.decoder.fallback
    if not left:
        return None
    decoder = config.decoder.model_copy(update={"backend": left[0], "fallback": tuple(left[1:])})
    # Clients come back to where they were, also where the config lets the ports be chosen.
    bound = {"decode": words.decode, "control": words.control}
    output = config.output.model_copy(update={k: v for k, v in bound.items() if v})
    source = config.input
    if words.run_id and not words.simulated:  # a person's stream that has gone is waited for
        source = source.model_copy(update={"simulate_if_absent": False})
    return config.model_copy(update={"decoder": decoder, "output": output, "input": source})


class _Watch:
    """Watches one daemon.

    Attributes:
        reading: its lifeline's, as it was judged.
        complaint: why it was ended; "" if it was not.
    """

    def __init__(self, pid: int, lifeline: Lifeline, clock: Clock, supervisor: Supervisor) -> None:
        self._pid, self._lifeline, self._clock = pid, lifeline, clock
        self._supervisor = supervisor
        self.reading, self.complaint = lifeline.read(), ""
        self._t_look_s = clock.now()
        self._over_s = self._starved_s = self._asked_s = self._cpu_s = 0.0
        self._is_asked = False

    def until_over(self) -> int | None:
        """Wait for the daemon's end; return its exit code, None if it hung or native code died."""
        while True:
            info = _asked_to_end()
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done:
                return self._ended(os.waitstatus_to_exitcode(status))
            if info is not None:
                self._pass_on(info)
            self._look()
            if self._is_asked and self._asked_s > ENDS_WITHIN_S[self.reading.phase]:
                self._kill()
                return 0 if self.reading.phase is Phase.STARTING else 1
            if self.complaint:
                self._kill()
                return self._unless_another_may_go_on()

    def _ended(self, code: int) -> int | None:
        if code >= 0:
            return code
        self.reading = self._lifeline.read()
        doing, died_of = self._lifeline.last_words().doing, signal.Signals(-code).name
        self.complaint = f"{doing} died of {died_of}{self._where}"
        return self._unless_another_may_go_on()

    def _unless_another_may_go_on(self) -> int | None:
        return 1 if self._is_asked or self.reading.phase is Phase.ENDING else None

    @property
    def _where(self) -> str:
        return f" after beat {self.reading.beat}" if self.reading.phase is Phase.RUNNING else ""

    def _pass_on(self, info: signal.struct_siginfo) -> None:
        """Ask the daemon to end; a terminal has asked its whole process group already."""
        self._is_asked = True
        self._supervisor.stopping()
        if info.si_code != _FROM_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def _look(self) -> None:
        """Count how long the daemon has been overdue while it could have run."""
        t_s, reading = self._clock.now(), self._lifeline.read()
        # A guardian that was held up itself cannot tell how long the daemon could have run.
        passed_s = min(t_s - self._t_look_s, 2 * POLL_S)
        self._t_look_s = t_s
        self._asked_s += passed_s * self._is_asked
        if reading.place != self.reading.place or not self._is_late(reading, t_s):
            self.reading, self._over_s, self._starved_s = reading, 0.0, 0.0
            self._cpu_s = _processor_s(self._pid)
            is_starting = reading.phase is Phase.STARTING or not reading.beat
            self._supervisor.alive(reading.seq, t_s, is_starting=is_starting)
        elif not _is_stopped(self._pid):
            self._count(passed_s)
            self._judge()

    def _count(self, passed_s: float) -> None:
        """Count the time since the last look; what it waited for a processor counts apart.

        Looked at once, at the end, a daemon that has just been let in again would be taken for one
        that slept all the while.
        """
        before_s, self._cpu_s = self._cpu_s, _processor_s(self._pid)
        if _is_starved(self._pid, self._cpu_s - before_s, passed_s):
            self._starved_s += passed_s
        else:
            self._over_s += passed_s

    def _is_late(self, reading: Reading, t_s: float) -> bool:
        lock_held = reading.phase is Phase.STARTING and reading.alive_s > 0
        return (reading.due_s != NO_LIMIT and t_s > reading.due_s) or (
            lock_held and t_s > reading.alive_s + LOCK_HELD_MOST_S
        )

    def _judge(self) -> None:
        words = self._lifeline.last_words()
        hangs = self._over_s > max(HELD_UP_MOST_S, HELD_UP_HOPS * words.hop_s)
        if not hangs and self._over_s + self._starved_s <= STARVED_MOST_S:
            return
        if self._lifeline.read().place == self.reading.place:  # it may have got further meanwhile
            self.complaint = f"{words.doing} did not return{self._where}"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        t_end = self._clock.now() + REAPED_WITHIN_S
        while not os.waitpid(self._pid, os.WNOHANG)[0] and self._clock.now() < t_end:
            self._clock.sleep_until(self._clock.now() + 1e-3)


def _be_the_daemon(
    run: Run, config: ServeConfig, lifeline: Lifeline, hung: Mapping[str, str]
) -> None:
    """Run the daemon in this process, and end it: hung native threads must not keep it."""
    code, last = 1, ""
    try:
        _die_with_the_parent()
        lifeline.attach()
        waited_for = _waited_for()
        for number in ending_signals():
            signal.signal(number, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for)
        run(config, lifeline, hung)
        code = 0
    except KeyboardInterrupt:
        code = 0
    except HANDLED as err:
        last, code = f"spikeloop: {err}\n", int(exit_code(err))
    except OSError as err:  # no descriptors, threads or memory left
        last = f"spikeloop: the operating system refuses: {err}; see `ulimit -a`\n"
    except BaseException:  # noqa: BLE001 - it must not go on as the guardian's copy
        last = traceback.format_exc()
    finally:
        end_log(last)
        end_sockets()
        os._exit(code)


def _in_process(run: Callable[[], None], supervisor: Supervisor) -> bool:
    """Run in a process of its own; return True if this one is asked to end meanwhile."""
    clock, is_asked = MonotonicClock(), False
    pid = os.fork()
    if pid == 0:
        with Guard(BaseException, traceback.print_exception):
            _die_with_the_parent()
            run()
        end_sockets()
        os._exit(0)
    while not os.waitpid(pid, os.WNOHANG)[0]:
        info = _asked_to_end()
        supervisor.alive(None, clock.now(), is_starting=True)  # a fallback follows: let it
        if info is not None:
            is_asked = True
            supervisor.stopping()
            os.kill(pid, signal.SIGKILL)
    return is_asked


def _asked_to_end() -> signal.struct_siginfo | None:
    """Wait a moment; return the signal that asks to end, if one came."""
    info = signal.sigtimedwait(_waited_for(), POLL_S)
    # After a stop (SIGSTOP, SIGCONT) Python returns what was never filled in, with any number.
    return info if info is not None and info.si_signo in ending_signals() else None


def _waited_for() -> set[signal.Signals]:
    return {*ending_signals(), signal.SIGCHLD}


def _die_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stat(path: Path) -> list[str]:
    """Return the fields of a `stat` file from the state on."""
    return path.read_text().rpartition(")")[2].split()


def _is_stopped(pid: int) -> bool:
    try:
        return _stat(Path(f"/proc/{pid}/stat"))[0] in "Tt"
    except (OSError, IndexError):
        return False


def _processor_s(pid: int) -> float:
    try:
        fields = _stat(Path(f"/proc/{pid}/stat"))
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_starved(pid: int, used_s: float, passed_s: float) -> bool:
    """Return True if a thread wants to run, or waits for the disk, and the process hardly ran."""
    states = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError, IndexError):
            states.append(_stat(task / "stat")[0])
    return used_s < passed_s / 2 and any(state in "RD" for state in states)
