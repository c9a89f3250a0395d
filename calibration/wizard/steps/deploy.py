"""Step 7: shadow, swap in the running daemon, watch, and confirm or roll back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.errors import WizardError
from calibration.registry import STORE, Registry
from calibration.wizard.driving import KEEP_S, Keeper, end_driving, free_speed
from calibration.wizard.results import DeployResult, needed
from calibration.wizard.run import CalibrationRun
from calibration.wizard.ui import BackError, Choice, Page, QuitError
from export.bundle import open_bundle
from export.sending import start_deployment
from streams.exit_codes import ExitCode
from streams.wire.client import DaemonClient

STEP = "deploy"
TITLE = "Putting it in service"
POLL_S = 0.1
# A GPU engine may have to be built first.
DEPLOYS_WITHIN_S = 120.0


@dataclass(slots=True)
class WatchedDecodes:
    """Decodes that the daemon published from the new decoder."""

    validity: Counter[str] = field(default_factory=Counter)
    n_late: int = 0
    n_lost: int = 0
    n_skipped: int = 0
    rolled_back: bool = False
    last: dict[str, Any] | None = None

    @property
    def n(self) -> int:
        """Decodes so far."""
        return sum(self.validity.values())

    @property
    def ok(self) -> float:
        """Share that may be trusted."""
        return self.validity["ok"] / max(self.n, 1)

    def add(self, topic: str, message: dict[str, Any], checksum: str) -> None:
        """Count a message; decodes from another decoder than `checksum` are passed over."""
        if topic == "event":
            self.rolled_back |= message["event"] == "rolled_back_out_of_range"
        elif message["checksum"] == checksum:
            if self.last is not None:
                self.n_lost += message["seq"] - self.last["seq"] - 1
                self.n_skipped += message["beat"] - self.last["beat"] - 1
            self.last = message
            self.n_late += message["late"]
            self.validity[message["validity"]] += 1


def step(run: CalibrationRun) -> DeployResult:
    """Register the decoder, and put it in service where there is a daemon.

    Raises:
        WizardError: the daemon refuses the decoder, or it did badly and was rolled back; the
            decoder is kept in the registry.
        UnreachableError: the daemon is gone.
    """
    decided, made = needed(run.results.decide), needed(run.results.adapt)
    if not decided.is_accepted:
        end_driving(run)
        return DeployResult(deployed=False, why=decided.reason)
    return deploy(run, Path(made.bundle), f"calibration {run.session_id}: {decided.reason}")


def deploy(run: CalibrationRun, bundle: Path, why: str) -> DeployResult:
    """Register a decoder and deploy it: shadow, swap, watch; confirmed or rolled back.

    Raises:
        WizardError, UnreachableError: see `step`.
    """
    registry = Registry(run.registry)
    # First of all: a decoder that was accepted is kept, whatever happens to the daemon.
    id_ = registry.add(bundle, why)
    if run.daemon is None:
        registry.promote(id_, why)
        return DeployResult(deployed=False, id=id_, why="no daemon is configured", current=True)
    status, drives = run.daemon.ask("status"), run.progress.notes.is_driving
    # While the subject drives, the decoder of before stands by, unless the daemon rolled back.
    base_id = open_bundle(run.base).manifest.id
    before = base_id if drives and status["standby"] == base_id else status["checksum"]
    # A resumed wizard may find it in service already.
    stages: list[dict[str, Any]] = []
    if status["checksum"] != id_:
        stages = _swap(run, run.daemon, run.registry / STORE / id_, tables=drives)
    if drives:
        Keeper(run.daemon).start()
    run.mark("block closed-loop assist=0")
    watched = _watch(run, run.daemon, id_)
    if drives:
        run.daemon.ask("keep", for_good=True)
        free_speed(run, run.daemon)
    run.progress.keep(is_driving=False)
    # Not before it has been confirmed.
    registry.promote(id_, why)
    return DeployResult(
        deployed=True,
        id=id_,
        before=before,
        stages=stages,
        watched_s=run.config.deploy.watch_s,
        decodes=watched.n,
        ok=watched.ok,
        late=watched.n_late,
        lost_messages=watched.n_lost,
        skipped_beats=watched.n_skipped,
        current=True,
    )


def _swap(
    run: CalibrationRun, daemon: DaemonClient, bundle: Path, *, tables: bool
) -> list[dict[str, Any]]:
    shadow_s, send = run.config.deploy.shadow_s, run.config.deploy.send
    if send:
        run.show(Page(STEP, TITLE, "sending the decoder to the daemon"))
    # Steps of the same sequence have driven: the last one needs no shadow.
    keep_s = KEEP_S if tables else 0.0
    start_deployment(daemon.ask, bundle, send=send, shadow_s=shadow_s, tables=tables, keep_s=keep_s)
    t_end_s = run.clock.now() + shadow_s + DEPLOYS_WITHIN_S
    while run.clock.now() < t_end_s:
        result = daemon.ask("deployment")
        stages: list[dict[str, Any]] = result["stages"]
        names = [stage["stage"] for stage in stages]
        body = Text(" > ".join(names) + (f" ({shadow_s:g} s)" if names[-1] == "shadow" else ""))
        run.show(Page(STEP, TITLE, body, names[-1]), POLL_S)
        if result["over"]:
            if result["refused"]:
                raise WizardError(f"the daemon refused it: {result['refused']}", ExitCode.BUNDLE)
            return stages
    raise WizardError(f"the daemon did not take it within {DEPLOYS_WITHIN_S:g} s", ExitCode.BUNDLE)


def _watch(run: CalibrationRun, daemon: DaemonClient, id_: str) -> WatchedDecodes:
    """Watch the new decoder; rolls back where it does badly or the operator says so."""
    watched, watch_s = WatchedDecodes(), run.config.deploy.watch_s
    subscriber = daemon.subscribe(("decode", "event"))
    t_end_s = run.clock.now() + watch_s
    try:
        while (left_s := t_end_s - run.clock.now()) > 0 and not watched.rolled_back:
            while (received := subscriber.receive(0.0)) is not None:
                watched.add(*received, id_)
            page = Page(STEP, TITLE, _body(watched, left_s), f"watching it for {watch_s:g} s")
            if run.ui.ask(page, (Choice("x", "roll back"),), wait_s=POLL_S) == "x":
                raise _rolled_back(daemon, "the operator rolled it back")
        _confirm(run, daemon, watched)
    # Nobody watches it any more, so the old one is the safe choice.
    except (BackError, QuitError):
        _rolled_back(daemon, "left before it was confirmed")
        raise
    finally:
        subscriber.close()
    return watched


def _confirm(run: CalibrationRun, daemon: DaemonClient, watched: WatchedDecodes) -> None:
    least = run.config.deploy.least_ok
    if watched.rolled_back:
        raise WizardError(
            "the daemon itself rolled it back: over a tenth of its decodes left the range that is "
            "known from training",
            ExitCode.BELOW_THRESHOLD,
        )
    text = f"{watched.ok:.0%} of {watched.n} decodes were ok, at least {least:.0%} are asked"
    choices = [Choice("c", "confirm: keep it"), Choice("x", "roll back to yesterday's")]
    # The first choice is taken where nobody is asked.
    if watched.ok < least:
        choices.reverse()
    if run.ui.ask(Page(STEP, TITLE, _body(watched, 0.0), text), choices) == "x":
        raise _rolled_back(daemon, text)


def _rolled_back(daemon: DaemonClient, why: str) -> WizardError:
    daemon.ask("rollback")
    return WizardError(f"rolled back to the decoder before: {why}", ExitCode.BELOW_THRESHOLD)


def _body(watched: WatchedDecodes, left_s: float) -> Group:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("decodes", str(watched.n))
    table.add_row("ok", f"{watched.ok:.1%}" if watched.n else "none yet")
    others = ", ".join(f"{n} {name}" for name, n in watched.validity.items() if name != "ok")
    table.add_row("others", others or "none")
    table.add_row("late, skipped, lost", f"{watched.n_late}, {watched.n_skipped}, {watched.n_lost}")
    if watched.last is not None:
        values = watched.last["value"].items()
        shown = "; ".join(f"{n} {' '.join(f'{x:+.1f}' for x in v)}" for n, v in values if v)
        table.add_row("newest", shown)
    note = "In service; watching it." if left_s else "Keep it?"
    return Group(table, Text(), Text(f"{note} {left_s:.0f} s left" if left_s else note))
