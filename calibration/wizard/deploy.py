"""Step 7: shadow, swap in the running daemon, watch, and confirm or roll back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.registry import STORE, Registry
from calibration.wizard.daemon import Daemon
from calibration.wizard.errors import BELOW_THRESHOLD, BUNDLE, WizardError
from calibration.wizard.face import BackError, Choice, Page, QuitError
from calibration.wizard.run import Run
from export.sending import send_bundle

STEP = "deploy"
TITLE = "Putting it in service"
POLL_S = 0.1
DEPLOYS_WITHIN_S = 120.0


@dataclass(slots=True)
class Watched:
    """What the daemon published of the new decoder."""

    validity: Counter[str] = field(default_factory=Counter)
    n_late: int = 0
    n_lost: int = 0
    n_skipped: int = 0
    rolled_back: bool = False
    last: dict[str, Any] | None = None

    @property
    def n(self) -> int:
        """Decodes."""
        return sum(self.validity.values())

    @property
    def ok(self) -> float:
        """Share that may be trusted."""
        return self.validity["ok"] / max(self.n, 1)

    def take(self, topic: str, message: dict[str, Any], checksum: str) -> None:
        """Take in a message."""
        if topic == "event":
            self.rolled_back |= message["event"] == "rolled_back_out_of_range"
        elif message["checksum"] == checksum:
            if self.last is not None:
                self.n_lost += message["seq"] - self.last["seq"] - 1
                self.n_skipped += message["beat"] - self.last["beat"] - 1
            self.last = message
            self.n_late += message["late"]
            self.validity[message["validity"]] += 1


def run(held: Run) -> dict[str, Any]:
    """Register the decoder, and put it in service where there is a daemon.

    Raises:
        WizardError: the daemon is gone or refuses the decoder, or it did badly and was rolled back;
            the decoder is kept in the registry.
    """
    decided, made = held.result("decide"), held.result("adapt")
    if decided["decided"] != "accept":
        return {"deployed": False, "why": decided["reason"]}
    registry = Registry(held.registry)
    why = f"calibration {held.session_id}: {decided['reason']}"
    id_ = registry.add(Path(made["bundle"]), why)
    if not held.config.deploy.control:
        registry.promote(id_, why)
        return {"deployed": False, "id": id_, "why": "no daemon is configured", "current": True}
    result = swapped_in(held, held.registry / STORE / id_, id_)
    registry.promote(id_, why)
    return result | {"current": True}


def swapped_in(held: Run, bundle: Path, id_: str) -> dict[str, Any]:
    """Shadow, swap, watch; confirmed or rolled back.

    Raises:
        WizardError: see `run`.
    """
    config = held.config.deploy
    daemon = Daemon(config.control, config.keys)
    before = daemon.ask("status")
    stages: list[dict[str, Any]] = []
    if before["checksum"] != id_:
        stages = _swap(held, daemon, bundle)
    daemon.mark("block closed-loop assist=0")
    watched = _watch(held, daemon, id_)
    return {
        "deployed": True,
        "id": id_,
        "before": before["checksum"],
        "stages": stages,
        "watched_s": config.watch_s,
        "decodes": watched.n,
        "ok": watched.ok,
        "late": watched.n_late,
        "lost_messages": watched.n_lost,
        "skipped_beats": watched.n_skipped,
    }


def _swap(held: Run, daemon: Daemon, bundle: Path) -> list[dict[str, Any]]:
    shadow_s = held.config.deploy.shadow_s
    if held.config.deploy.send:
        held.face.ask(Page(STEP, TITLE, "sending the decoder to the daemon", ""), (), wait_s=0.0)
        send_bundle(daemon.ask, bundle, shadow_s=shadow_s, hold=False)
    else:
        daemon.ask("swap", bundle=str(bundle.resolve()), shadow_s=shadow_s, hold=False)
    t_end_s = held.clock.now() + shadow_s + DEPLOYS_WITHIN_S
    while held.clock.now() < t_end_s:
        result = daemon.ask("deployment")
        names = [stage["stage"] for stage in result["stages"]]
        body = Text(" > ".join(names) + (f" ({shadow_s:g} s)" if names[-1] == "shadow" else ""))
        held.face.ask(Page(STEP, TITLE, body, names[-1]), (), wait_s=POLL_S)
        if result["over"]:
            if result["refused"]:
                raise WizardError(f"the daemon refused it: {result['refused']}", BUNDLE)
            stages: list[dict[str, Any]] = result["stages"]
            return stages
    raise WizardError(f"the daemon did not take it within {DEPLOYS_WITHIN_S:g} s", BUNDLE)


def _watch(held: Run, daemon: Daemon, id_: str) -> Watched:
    """Watch the new decoder; rolls back where it does badly or the operator says so."""
    watched, config = Watched(), held.config.deploy
    subscriber = daemon.subscribe(("decode", "event"))
    t_end_s = held.clock.now() + config.watch_s
    try:
        while (left_s := t_end_s - held.clock.now()) > 0 and not watched.rolled_back:
            while (received := subscriber.receive(0.0)) is not None:
                watched.take(*received, id_)
            page = Page(
                STEP, TITLE, _body(watched, left_s), f"watching it for {config.watch_s:g} s"
            )
            if held.face.ask(page, (Choice("x", "roll back"),), wait_s=POLL_S) == "x":
                raise _rolled_back(daemon, "the operator rolled it back")
        return _confirmed(held, daemon, watched)
    except (BackError, QuitError):
        _rolled_back(daemon, "left before it was confirmed")
        raise
    finally:
        subscriber.close()


def _confirmed(held: Run, daemon: Daemon, watched: Watched) -> Watched:
    least = held.config.deploy.least_ok
    if watched.rolled_back:
        raise WizardError(
            "the daemon itself rolled it back: over a tenth of its decodes left the range that is "
            "known from training",
            BELOW_THRESHOLD,
        )
    badly = watched.ok < least
    told = f"{watched.ok:.0%} of {watched.n} decodes were ok, at least {least:.0%} are asked"
    choices = [Choice("c", "confirm: keep it"), Choice("x", "roll back to yesterday's")]
    if badly:
        choices.reverse()
    if held.face.ask(Page(STEP, TITLE, _body(watched, 0.0), told), choices) == "x":
        raise _rolled_back(daemon, told)
    return watched


def _rolled_back(daemon: Daemon, why: str) -> WizardError:
    daemon.ask("rollback")
    return WizardError(f"rolled back to the decoder before: {why}", BELOW_THRESHOLD)


def _body(watched: Watched, left_s: float) -> Group:
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
