"""`[drive]`: the subject drives while trials are collected, by tables that change at each step.

A step is a decoder of the sequence. It drives only while the newest trials, each scored by the
decoder that was made before it, are above the floor; else yesterday's drives, or nobody does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calibration.errors import WizardError
from calibration.prequential.traces import Recent
from calibration.wizard.config import CalibrateConfig, DriveSection
from calibration.wizard.learner import Learnt
from calibration.wizard.run import CalibrationRun
from export.bundle import open_bundle
from export.sending import start_deployment
from streams.clock import Clock
from streams.errors import StreamsError
from streams.exit_codes import ExitCode
from streams.wire.client import DaemonClient

POLL_S = 0.1
# A backend may have to be opened first.
DEPLOYS_WITHIN_S = 60.0
# The task hears of smaller changes of assistance only with others.
ASSIST_STEP = 0.05
# At most this much less of it from one step to the next.
ASSIST_FALLS = 0.25
# Whatever the last score was: one that is so old says nothing of the units now.
SCORED_WITHIN_S = 30.0
# The daemon rolls a step back where the wizard was not heard of for so long: it was killed.
KEEP_S, KEEP_EVERY_S = 20.0, 5.0
By = Literal["task", "yesterday", "today"]
NAMES: dict[By, str] = {
    "task": "nobody drives",
    "yesterday": "yesterday's decoder drives",
    "today": "today's decoder drives",
}


@dataclass(frozen=True, slots=True)
class Drives:
    """What moves the cursor.

    Attributes:
        by: nobody (the task, as in open loop), yesterday's decoder or today's.
        assist: the task's share in the cursor's velocity.
        why: the reason where it is not today's decoder.
    """

    by: By
    assist: float = 0.0
    why: str = ""

    @property
    def mark(self) -> str:
        """The block as the task reads it."""
        if self.by == "task":
            return "block open-loop"
        return f"block closed-loop assist={self.assist:.2f}"

    @property
    def text(self) -> str:
        """The same for people."""
        told = NAMES[self.by]
        if self.by != "task":
            told += f", assisted by {self.assist:.0%}" if self.assist else ", not assisted"
        return f"{told}: {self.why}" if self.why else told


def who_drives(score: Recent, config: DriveSection, before: Drives = Drives("task")) -> Drives:
    """Choose by the newest trials' scores: today's decoder above the floor, or yesterday's.

    Args:
        score: of the newest trials.
        config: the floor and the assistance.
        before: who drove until now.
    """
    if score.n_trials < config.fewest_trials:
        return Drives("task", why=f"{score.n_trials} trials scored of {config.fewest_trials}")
    chance = score.shuffled + config.over_shuffled
    if not score.today >= config.least_r2:
        why = f"today's R2 is {score.today:.2f}, and {config.least_r2:g} is the floor"
    elif score.today < chance:
        why = f"today's R2 is {score.today:.2f}, and {score.shuffled:.2f} with units shuffled"
    elif score.today < score.yesterday + config.over_yesterday:
        why = f"today's R2 is {score.today:.2f}, and yesterday's {score.yesterday:.2f}"
    else:
        return Drives("today", _eased(score.today, config, before))
    if not score.yesterday >= max(config.least_r2, chance):
        return Drives("task", why=why)
    return Drives("yesterday", _eased(score.yesterday, config, before), why)


def assist_at(r2: float, config: DriveSection) -> float:
    """The task's share at this R2: all of `assist` at the floor, none from `full_r2` on."""
    span = max(config.full_r2 - config.least_r2, 1e-9)
    lacking = min(max((config.full_r2 - r2) / span, 0.0), 1.0)
    return round(config.assist * lacking / ASSIST_STEP) * ASSIST_STEP


def require_drivable(config: CalibrateConfig, *, closed_form: bool) -> None:
    """Refuse a config by which nobody could drive.

    Raises:
        WizardError: says which lines contradict one another.
    """
    why = ""
    if config.cues.builtin:
        why = "the task of `[cues] builtin` moves the cursor by itself: let a task run that takes "
        why += "decodes (docs/tutorials/task.md)"
    elif not config.deploy.control:
        why = "there is no daemon: name its `control` under [deploy]"
    elif not closed_form:
        why = 'decoders are made afterwards: it takes `[learn] way = "closed-form"` and a base '
        why += "that has one"
    if why:
        raise WizardError(f"[drive] enabled, but {why}", ExitCode.USAGE)


def _eased(r2: float, config: DriveSection, before: Drives) -> float:
    """All of it at first, then what the score asks for, a step at a time where that is less.

    Trials of the subject's own movements are decoded better than those that it drives.
    """
    least = config.assist if before.by == "task" else before.assist - ASSIST_FALLS
    return max(assist_at(r2, config), round(least, 2), 0.0)


class Driving:
    """Puts steps into the running daemon, and tells the task who drives.

    Args:
        run: the calibration; its daemon runs.
        daemon: the same.
        show: shows a line while the start is waited for.

    Attributes:
        now: what moves the cursor.
        n_swaps: steps that went into service.
        trouble: why nobody drives any more; "" while all is well.
    """

    def __init__(
        self, run: CalibrationRun, daemon: DaemonClient, show: Callable[[str], None]
    ) -> None:
        self._run, self._daemon, self._config = run, daemon, run.config.drive
        self._base_id = open_bundle(run.base).manifest.id
        self.now, self.n_swaps, self.trouble = Drives("task"), 0, ""
        self._heard: Learnt | None = None
        self._n_scored, self._t_scored_s = 0, run.clock.now()
        self._coming: tuple[Path, Drives] | None = None
        self._newest: Path | None = None
        self._newest_id = ""
        self._keeper = Keeper(daemon)
        end_driving(run)  # of a wizard that was killed
        self._note_span(is_driven=False)
        run.progress.keep(is_driving=True)
        self._put_base(show)
        self._bound_speed()

    @property
    def seconds(self) -> float:
        """How long the subject drove, in all."""
        t_s, spans = self._run.clock.now(), self._run.progress.notes.drove
        return sum((t_s if end_s is None else end_s) - begin_s for begin_s, end_s in spans)

    def follow(self, learnt: Learnt, trouble: str) -> None:
        """Do what the newest score asks for; returns soon.

        Args:
            learnt: from the learner.
            trouble: what is wrong with the streams; nobody drives by what cannot be scored.
        """
        if self.trouble:
            return
        if learnt.n_trials != self._n_scored:
            self._n_scored, self._t_scored_s = learnt.n_trials, self._run.clock.now()
        elif self._run.clock.now() > self._t_scored_s + SCORED_WITHIN_S:
            trouble = trouble or f"no trial was scored for {SCORED_WITHIN_S:.0f} s"
        try:
            if self._coming is not None:
                self._await_step()
            elif trouble or learnt is not self._heard:
                self._heard = None if trouble else learnt
                self._change(self._wanted(learnt, trouble), learnt)
        except StreamsError as err:
            self.trouble = f"nobody drives any more: {err}"
            with suppress(StreamsError):
                back_to(self._daemon, self._base_id)
            self._hand(Drives("task", why=str(err)))

    def pause(self) -> None:
        """Note that what is recorded ends here; who drives goes on."""
        self._note_span(is_driven=False)

    def _wanted(self, learnt: Learnt, trouble: str) -> Drives:
        if trouble:
            return Drives("task", why=trouble)
        if self._run.progress.notes.pace is None:
            if learnt.pace is None:
                return Drives("task", why=learnt.no_pace or "nothing is known yet")
            pace = (learnt.pace.top, learnt.pace.slow_within)
            if (wanted := who_drives(learnt.recent, self._config, self.now)).by != "task":
                # Of the subject's own movements, before any decoder moves for it.
                self._run.progress.keep(pace=pace)
            return wanted
        return who_drives(learnt.recent, self._config, self.now)

    def _change(self, wanted: Drives, learnt: Learnt) -> None:
        if wanted.by != "today":
            back_to(self._daemon, self._base_id)
            self._newest, self._newest_id = None, ""
            self._hand(wanted)
            return
        self._require_ours()
        if learnt.newest is None or learnt.newest == self._newest:
            self._hand(wanted)
            return
        send = self._run.config.deploy.send
        start_deployment(self._daemon.ask, learnt.newest, send=send, tables=True, keep_s=KEEP_S)
        self._coming = learnt.newest, wanted

    def _await_step(self) -> None:
        """Look whether the step is in service; one that is refused leaves who drives."""
        result = self._daemon.ask("deployment")
        if self._coming is None or not result["over"]:
            return
        (path, wanted), self._coming = self._coming, None
        if result["refused"]:
            raise StreamsError(f"the daemon refused a step: {result['refused']}")
        self._newest, self._newest_id = path, open_bundle(path).manifest.id
        self.n_swaps += 1
        self._keeper.start()
        self._hand(wanted)

    def _require_ours(self) -> None:
        """Raise where the daemon has rolled a step back by itself, or somebody else has swapped.

        Raises:
            StreamsError: it has.
        """
        served, ours = self._daemon.ask("status")["checksum"], self._newest_id or self._base_id
        if served != ours:
            why = "it rolled today's decoder back, or somebody swapped another one in"
            raise StreamsError(f"the daemon runs {served[:12]} and not {ours[:12]}: {why}")

    def _hand(self, drives: Drives) -> None:
        """Tell the task, and note from when on the cursor was driven."""
        if drives.mark != self.now.mark:
            self._run.mark(drives.mark)
        self.now = drives
        self._note_span(is_driven=drives.by != "task")

    def _note_span(self, *, is_driven: bool) -> None:
        spans = self._run.progress.notes.drove
        was_driven = bool(spans) and spans[-1][1] is None
        if is_driven == was_driven:
            return
        t_s = self._run.clock.now()
        ended = (*spans[:-1], (spans[-1][0], t_s)) if was_driven else (*spans, (t_s, None))
        self._run.progress.keep(drove=ended)

    def _put_base(self, show: Callable[[str], None]) -> None:
        """Have yesterday's decoder in service, by an exchange of tables that shows that they work.

        Raises:
            WizardError: the daemon refuses it.
        """
        if self._daemon.ask("status")["checksum"] != self._base_id:
            show("another decoder is in service: yesterday's goes in first")
            self._deploy(show, tables=False)
        self._deploy(show, tables=True)
        # In service by tables already, it has a decoder of before standing by, which is no floor.
        if self._daemon.ask("status")["standby"] != self._base_id:
            self._deploy(show, tables=False)
            self._deploy(show, tables=True)
        status = self._daemon.ask("status")
        if (status["checksum"], status["standby"]) != (self._base_id, self._base_id):
            raise WizardError(
                "yesterday's decoder does not stand by in the daemon: does somebody else swap "
                "decoders there?",
                ExitCode.BUNDLE,
            )

    def _bound_speed(self) -> None:
        """Have the daemon bound the cursor's speed, as long as the subject drives."""
        if self._config.max_speed:
            before = self._daemon.ask("status")["shaping"]["max_speed"]
            self._run.progress.keep(max_speed_before=before)
            self._daemon.ask("shape", max_speed=self._config.max_speed)

    def _deploy(self, show: Callable[[str], None], *, tables: bool) -> None:
        send, clock = self._run.config.deploy.send, self._run.clock
        start_deployment(self._daemon.ask, self._run.base, send=send, tables=tables)
        result = awaited(self._daemon, clock, lambda: show("trying the exchange of tables"))
        if result["refused"]:
            raise WizardError(
                f"the daemon does not take yesterday's decoder: {result['refused']}. Without "
                "[drive] it is calibrated as usual",
                ExitCode.BUNDLE,
            )


class Keeper:
    """Tells the daemon that the wizard is there, until nothing is held any more.

    It is a thread, since a step is kept while scores are drawn and questions asked, too.

    Args:
        daemon: which holds the step.
    """

    def __init__(self, daemon: DaemonClient) -> None:
        self._daemon = daemon
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Go on telling, if that has ended."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._tell, name="keeper", daemon=True)
            self._thread.start()

    def _tell(self) -> None:
        said = threading.Event()
        while True:
            # A daemon that does not answer is told of by whoever asks it for more.
            with suppress(StreamsError):
                if not self._daemon.ask("keep").get("kept", False):
                    return
            said.wait(KEEP_EVERY_S)


def awaited(daemon: DaemonClient, clock: Clock, each: Callable[[], None]) -> dict[str, Any]:
    """Wait until a deployment is over; its result.

    Raises:
        WizardError: it takes too long.
    """
    t_end_s = clock.now() + DEPLOYS_WITHIN_S
    while clock.now() < t_end_s:
        if (result := daemon.ask("deployment"))["over"]:
            return result
        each()
        clock.sleep_until(clock.now() + POLL_S)
    raise WizardError(f"the daemon did not take it within {DEPLOYS_WITHIN_S:g} s", ExitCode.BUNDLE)


def back_to(daemon: DaemonClient, id_: str) -> None:
    """Roll back where this decoder stands by and another one is in service."""
    status = daemon.ask("status")
    if status["checksum"] != id_ and status["standby"] == id_:
        daemon.ask("rollback")


def free_speed(run: CalibrationRun, daemon: DaemonClient) -> None:
    """Give the daemon its own bound on speed back, where driving had another."""
    if (before := run.progress.notes.max_speed_before) is not None:
        daemon.ask("shape", max_speed=before)
        run.progress.keep(max_speed_before=None)


def end_driving(run: CalibrationRun) -> None:
    """Leave yesterday's decoder in service and the task at rest, where nothing was accepted."""
    if not run.progress.notes.is_driving or run.daemon is None:
        return
    try:
        # A step on its way would take over after the rollback.
        awaited(run.daemon, run.clock, lambda: None)
        back_to(run.daemon, open_bundle(run.base).manifest.id)
        free_speed(run, run.daemon)
        run.mark("block rest")
    except StreamsError as err:
        raise WizardError(
            f"the daemon may still run a decoder that was not accepted: {err}. Ask it by "
            "`spikeloop status`, and roll back by `spikeloop rollback`"
        ) from err
    run.progress.keep(is_driving=False)
