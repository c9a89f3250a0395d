"""Step 8, optional: the subject drives, less and less assisted, and teaches by what it meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.text import Text

from calibration.registry import STORE, Registry
from calibration.wizard.adapting import adapted, decoder_name
from calibration.wizard.collect import REFRESH_S, convert_to_nwb, test_part
from calibration.wizard.daemon import Daemon
from calibration.wizard.decide import decided
from calibration.wizard.deploy import swapped_in
from calibration.wizard.face import Choice, Page
from calibration.wizard.holes import holes_of, longest_silence_s, without
from calibration.wizard.intention import pace_of, with_intention
from calibration.wizard.recorder import Recorder, wanted
from calibration.wizard.run import Run
from calibration.wizard.verify_page import line_of, table_of
from export.bundle import open_bundle
from streams.sessions.convert.convert import joined
from streams.sessions.nwb.writer import write_session
from streams.sessions.reading import read_session

STEP = "recalibrate"
TITLE = "The subject drives"


def run(held: Run) -> dict[str, Any]:
    """Blocks in closed loop, a decoder from what was meant, and its way into service.

    Raises:
        WizardError: as the steps that it repeats.
    """
    assist = held.config.recalibrate.assist
    if not assist or not held.result("deploy").get("deployed"):
        return {"done": False}
    if not _wanted(held):
        return {"done": False, "why": "the operator left it out"}
    paths = _drive(held, assist)
    session = _meant(held, paths)
    test = test_part(read_session(session), held.config.recalibrate.verify_s)
    today = Path(held.result("adapt")["bundle"])
    out = held.folder / "decoder" / f"{decoder_name(held)}-driven"
    made = adapted(held, today, session, out, test)
    compared = _compared(held, today, out, session, test)
    held.face.ask(Page(STEP, TITLE, table_of(compared), line_of(compared)))
    least_r2 = held.config.recalibrate.least_r2
    judged = decided(held, compared, held.config.decide.model_copy(update={"least_r2": least_r2}))
    result = {"done": True, "recordings": [path.name for path in paths], "session": str(session)}
    result |= {"adapt": made, "verify": compared, "decide": judged}
    if judged["decided"] == "accept":
        result["deploy"] = _deploy(held, out, judged["reason"])
    return result


def _compared(held: Run, today: Path, driven: Path, session: Path, test: str) -> dict[str, Any]:
    """What driving added to the decoder of the open loop, on what was meant."""
    from calibration.wizard.verify import verified  # brings torch; most mornings do without here

    traces, seed = held.folder / "verify-driven.npz", held.config.calibration.seed
    before, after = open_bundle(today), open_bundle(driven)
    return verified(before, after, read_session(session), test, traces, seed)


def _wanted(held: Run) -> bool:
    n, block_s = len(held.config.recalibrate.assist), held.config.recalibrate.block_s
    told = f"{n} blocks of {block_s:g} s in which the subject drives, with less and less assistance"
    choices = (Choice("enter", "begin"), Choice("s", "leave it out"))
    return held.face.ask(Page(STEP, TITLE, Text(told), told), choices) != "s"


def _drive(held: Run, assist: tuple[float, ...]) -> list[Path]:
    """Record each block that is not there yet."""
    done = [held.folder / name for name in held.progress.note("driven") or []]
    daemon = Daemon(held.config.deploy.control, held.config.deploy.keys)
    for i in range(len(done), len(assist)):
        path = held.folder / f"driven-{i + 1}.xdf"
        path.unlink(missing_ok=True)  # of a wizard that was killed inside the block
        daemon.mark(f"block closed-loop assist={assist[i]:.2f}")
        try:
            _record(held, path, i + 1, assist[i])
        finally:
            daemon.mark("block closed-loop assist=0")
        done.append(path)
        held.progress.keep("driven", [one.name for one in done])
    return done


def _record(held: Run, path: Path, number: int, assist: float) -> None:
    recorder = Recorder(held, path, wanted(held.config))
    try:
        while not recorder.is_recording:
            held.face.ask(Page(STEP, TITLE, "looking for the streams", ""), (), wait_s=REFRESH_S)
        block_s = held.config.recalibrate.block_s
        t_end_s = held.clock.now() + block_s
        while (left_s := t_end_s - held.clock.now()) > 0:
            recorder.check()
            told = f"block {number} of {len(held.config.recalibrate.assist)}, {assist:.0%} assisted"
            bar = ProgressBar(total=block_s, completed=block_s - left_s, width=50)
            page = Page(STEP, TITLE, Group(Text(told), bar), told)
            held.face.ask(page, (), wait_s=REFRESH_S)
    finally:
        recorder.stop()


def _meant(held: Run, paths: list[Path]) -> Path:
    """The blocks as a session of what was meant, behind what was collected in open loop."""
    driven = held.folder / "driven.nwb"
    convert_to_nwb(held, paths, driven)
    body, on_target = held.config.behavior.body, held.config.recalibrate.on_target
    collected = read_session(Path(held.result("collect")["session"]))
    pace = pace_of(collected, body)
    session = read_session(driven)
    longest_s = longest_silence_s(open_bundle(held.base))
    used = without(session, holes_of(session, [f"{body}_position"], longest_s))
    meant = with_intention(used, body, pace, on_target)
    out = held.folder / "meant.nwb"
    write_session(joined([collected, meant]), out)
    return out


def _deploy(held: Run, bundle: Path, reason: str) -> dict[str, Any]:
    why = f"closed-loop recalibration {held.session_id}: {reason}"
    registry = Registry(held.registry)
    id_ = registry.add(bundle, why)
    result = swapped_in(held, held.registry / STORE / id_, id_)
    registry.promote(id_, why)
    return result
