"""The wizard as a technician meets it: in a terminal, killed and resumed, on bad streams."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from calibration.adaptation.adapt import adapt
from calibration.registry import Registry
from calibration.wizard.config import DeploySection
from calibration.wizard.results import STEPS
from export.bundle import open_bundle
from streams.sessions.convert.convert import Reading, convert
from streams.sessions.reading import read_session
from tests.system.calibrating import Lab, Terminal, make_base, until_done, write_config
from tests.system.conftest import DaemonStarter
from tests.system.conftest import write_config as write_serve_config
from tests.system.running import Daemon, Process, unique, wait_until

KEYS = tuple(f"ch{i}/u1" for i in range(1, 25))
FOLDER = "day"
ROOM = 60_000
BY_GRADIENT = {"way": "gradient"}
IS_FULL = "SPIKELOOP_FULL" in os.environ
EARLY_STEPS = ("preflight", "collect", "adapt") if IS_FULL else ("preflight", "collect")
LATE_STEPS = STEPS[STEPS.index("verify") : -1] if IS_FULL else ("decide",)
Run = Callable[..., Process]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yesterday's decoder of the lab's units."""
    return make_base(tmp_path_factory.mktemp("base"), KEYS)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory in which all is well."""
    with ExitStack() as ending:
        yield started_lab({}, ending)


def progress_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / FOLDER / "progress.json").read_text())
    return content


@pytest.mark.long
def test_from_start_to_finish_through_a_terminal(
    lab: Lab, base: Path, serve: DaemonStarter, tmp_path: Path
) -> None:
    daemon = serve(lab.name_, base)
    daemon.until_validity("ok")
    deploy = {"control": daemon.control}
    config = write_config(tmp_path, lab.name_, base, deploy=deploy, learn=BY_GRADIENT)
    seat = Terminal("calibrate", str(config), "--folder", str(tmp_path / FOLDER))
    try:
        seat.until("go on")
        assert "Is everything in place?" in seat.text
        seat.press("\r")
        seat.until("finish early")
        seat.press("q")
        seat.until("Leave?")
        seat.press("n")
        seat.until("enough: finish when it suits you")
        seat.press("f")
        seat.until("control: units shuffled")
        seat.press("\r")
        seat.until("opens in any browser")
        seat.press("\r")
        seat.until("accept: put it in service")
        seat.press("b")
        seat.until("opens in any browser")
        seat.press("\r")
        seat.until("accept: put it in service")
        seat.press("a")
        daemon.until(lambda heard: any(e["event"] == "promote" for e in heard.events))
        seat.until("confirm: keep it")
        seat.press("c")
        assert seat.code() == 0
    finally:
        seat.kill()
    made = progress_of(tmp_path)["steps"]
    assert daemon.ask("status").result["checksum"] == made["adapt"]["checksum"]
    assert Registry(tmp_path / "bundles").current() == made["adapt"]["checksum"]
    assert made["decide"]["by"] == "operator"
    report = tmp_path / "bundles" / "store" / made["adapt"]["checksum"] / "report"
    page = (report / "calibration.html").read_text()
    assert "Accepted by the operator" in page
    assert "In service" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.long
def test_killed_at_each_step_and_resumed(lab: Lab, base: Path, run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, lab.name_, base, learn=BY_GRADIENT)
    arguments = ["calibrate", str(config), "--auto", "--json", "--folder", str(tmp_path / FOLDER)]
    progress = tmp_path / FOLDER / "progress.json"
    first = tmp_path / FOLDER / "collect-1.xdf"
    for step in EARLY_STEPS:
        wizard = run(*arguments, *(["--resume"] if progress.exists() else []))
        until_done(progress, step, lambda held=wizard: held.is_alive)  # type: ignore[misc]
        wait_until(lambda: first.exists() and first.stat().st_size > 60_000)
        wizard.signal(signal.SIGKILL)
        wizard.code()
    before = progress_of(tmp_path)["steps"]
    for step in LATE_STEPS:
        _forget_after(progress, step)
        wizard = run(*arguments, "--resume")
        until_done(progress, step, lambda held=wizard: True)  # type: ignore[misc]
        wizard.signal(signal.SIGKILL)
        wizard.code()
    last = run(*arguments, "--resume")
    assert last.code() == 0, last.err
    told = json.loads(last.out)
    steps = progress_of(tmp_path)["steps"]
    assert steps["collect"] == before["collect"]
    assert before.get("adapt", steps["adapt"]) == steps["adapt"]
    _assert_nothing_lost(tmp_path / FOLDER, steps)
    again = adapt(
        Path(progress_of(tmp_path)["notes"]["base"]),
        Path(told["session"]),
        out=tmp_path / Path(told["bundle"]).name,
        seconds=1e6,
        same_array=True,
        test=steps["collect"]["test"],
        facts={"pace": open_bundle(Path(told["bundle"])).manifest.training["pace"]},
    )
    assert again["checksum"] == told["checksum"] == Registry(tmp_path / "bundles").current()


@pytest.mark.long
def test_a_full_disk_while_collecting_and_room_again(
    lab: Lab, base: Path, run: Run, tmp_path: Path
) -> None:
    config = write_config(tmp_path, lab.name_, base)
    arguments = ["calibrate", str(config), "--auto", "--json", "--folder", str(tmp_path / FOLDER)]
    wizard = run(*arguments)
    resource.prlimit(wizard.popen.pid, resource.RLIMIT_FSIZE, (ROOM, ROOM))
    assert wizard.code() == 2, wizard.err
    told = json.loads(wizard.out)["error"]
    assert "the disk refused more of" in told
    assert "What was recorded is kept" in told
    resumed = run(*arguments, "--resume")
    assert resumed.code() == 0, resumed.err
    _assert_nothing_lost(tmp_path / FOLDER, progress_of(tmp_path)["steps"])


def _forget_after(progress: Path, step: str) -> None:
    """Undo what a wizard that was too quick to be killed has done beyond a step."""
    content = json.loads(progress.read_text())
    kept = STEPS[: STEPS.index(step)]
    content["steps"] = {name: content["steps"][name] for name in kept if name in content["steps"]}
    progress.write_text(json.dumps(content))


def _assert_nothing_lost(folder: Path, steps: dict[str, Any]) -> None:
    parts = sorted(folder.glob("collect-*.xdf"))
    assert [part.name for part in parts] == steps["collect"]["recordings"]
    assert len(parts) == 2
    session = read_session(steps["collect"]["session"])
    alone = [convert([part], None, Reading()) for part in parts]
    assert len(session.spikes) == sum(len(one.spikes) for one in alone)
    assert session.trials is not None
    assert len(session.trials) == sum(len(one.trials or ()) for one in alone)


@dataclass(frozen=True)
class Bad:
    """A laboratory in which something is wrong, and what the wizard says of it."""

    lab: dict[str, Any]
    config: dict[str, Any]
    code: int
    says: str


BAD = {
    "no markers": Bad({"with_markers": False}, {}, 3, "brought no marker"),
    "frozen": Bad({"is_moving": False}, {}, 3, "is frozen"),
    "one direction": Bad({"n_directions": 2}, {"most_s": 10.0}, 3, "along one direction"),
    "too few trials": Bad({}, {"fewest_trials": 500, "most_s": 10.0}, 3, "too few trials"),
    "all units dead": Bad({"is_firing": False}, {}, 3, "brought no spike"),
}


@dataclass(frozen=True)
class Deserted:
    """A wizard whose daemon went while it worked, and what it takes to go on."""

    lab: Lab
    folder: Path
    control: str
    arguments: tuple[str, ...]
    wizard: Process


@dataclass(frozen=True)
class Days:
    """Wizards that ran at the same time, and have ended."""

    bad: dict[str, Process]
    deserted: Deserted


@pytest.fixture(scope="module")
def days(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Days]:
    """A wizard for each bad laboratory, and one whose daemon goes, all at once."""
    with ExitStack() as ending:
        yield _live_through(base, tmp_path_factory, ending)


def _live_through(base: Path, folders: pytest.TempPathFactory, ending: ExitStack) -> Days:
    """Start all, and wait for the wizards; `ending` ends what runs, whatever happens here."""
    bad = {}
    for name, one in BAD.items():
        lab = started_lab(one.lab, ending)
        folder = folders.mktemp(name.replace(" ", "-"))
        config = write_config(folder, lab.name_, base, collect=one.config)
        arguments = ("calibrate", str(config), "--auto", "--json", "--folder", str(folder / FOLDER))
        bad[name] = Process(folder, *arguments)
        ending.callback(bad[name].kill)
    deserted = _desert(started_lab({}, ending), base, folders.mktemp("deserted"), ending)
    for wizard in (*bad.values(), deserted.wizard):
        wizard.code()
    return Days(bad, deserted)


def started_lab(options: dict[str, Any], ending: ExitStack) -> Lab:
    made = Lab(unique("lab"), KEYS, **options)
    made.start()
    ending.callback(made.close)
    return made


def _desert(lab: Lab, base: Path, folder: Path, ending: ExitStack) -> Deserted:
    """Start daemon and wizard, and end the daemon once the trials are collected."""
    daemon = Daemon(folder, write_serve_config(folder, lab.name_, base))
    ending.callback(daemon.kill)
    daemon.until_validity("ok")
    config = write_config(folder, lab.name_, base, deploy={"control": daemon.control})
    arguments = ("calibrate", str(config), "--auto", "--json", "--folder", str(folder / FOLDER))
    wizard = Process(folder, *arguments)
    ending.callback(wizard.kill)
    until_done(folder / FOLDER / "progress.json", "collect", lambda: wizard.is_alive)
    daemon.kill()
    return Deserted(lab, folder, daemon.control, arguments, wizard)


@pytest.mark.parametrize("name", BAD)
def test_bad_streams_are_told_and_nothing_is_made_of_them(days: Days, name: str) -> None:
    wizard, bad = days.bad[name], BAD[name]
    assert wizard.code() == bad.code, wizard.err
    assert bad.says in json.loads(wizard.out)["error"]
    assert "Traceback" not in wizard.err


def test_a_daemon_that_is_gone_at_deploy(
    days: Days, base: Path, serve: DaemonStarter, run: Run
) -> None:
    held = days.deserted
    assert held.wizard.code() == 7, held.wizard.err
    assert "--resume" in held.wizard.err
    assert "no spikeloop daemon answered" in json.loads(held.wizard.out)["error"]
    steps = progress_of(held.folder)["steps"]
    assert "deploy" not in steps
    registry = Registry(held.folder / "bundles")
    assert [entry.id for entry in registry.entries()] == [steps["adapt"]["checksum"]]
    assert registry.current() is None
    back = serve(held.lab.name_, base, output={"control": held.control})
    back.until_validity("ok")
    resumed = run(*held.arguments, "--resume")
    assert resumed.code() == 0, resumed.err
    assert json.loads(resumed.out)["deployment"]["ok"] >= DeploySection().least_ok
    assert back.ask("status").result["checksum"] == steps["adapt"]["checksum"]
    assert registry.current() == steps["adapt"]["checksum"]


@pytest.mark.long
def test_a_daemon_on_another_machine_is_sent_the_decoder(
    lab: Lab, base: Path, serve: DaemonStarter, run: Run, tmp_path: Path
) -> None:
    keys, signed = tmp_path / "keys", Path(shutil.copytree(base, tmp_path / "signed"))
    assert run("keys", str(keys)).code() == 0
    assert run("keys", str(keys), "--signing", "lab").code() == 0
    assert run("sign", str(signed), "--key", str(keys / "lab.signing.json")).code() == 0
    everywhere = {"decode": "tcp://0.0.0.0:*", "control": "tcp://0.0.0.0:*"}
    daemon = serve(
        lab.name_,
        signed,
        output=everywhere | {"keys": str(tmp_path / "keys" / "server.json")},
        decoder={
            "incoming": str(tmp_path / "incoming"),
            "require_signature": [str(keys / "lab.pub")],
        },
    )
    control = daemon.announced["control"].replace("0.0.0.0", "127.0.0.1")
    client = tmp_path / "keys" / "client.json"
    deploy = {"control": control, "keys": str(client), "send": True}
    sign = {"key": str(keys / "lab.signing.json")}
    config = write_config(tmp_path, lab.name_, signed, deploy=deploy, sign=sign)
    wizard = run("calibrate", str(config), "--auto", "--json", "--folder", str(tmp_path / FOLDER))
    assert wizard.code() == 0, wizard.err
    told = json.loads(wizard.out)["deployment"]
    assert told["ok"] >= DeploySection().least_ok
    assert told["decodes"] > 10
    status = run("status", "--json", "--control", control, "--keys", str(client))
    assert status.code() == 0, status.err
    in_service = json.loads(status.out)["result"]["checksum"]
    assert in_service == progress_of(tmp_path)["steps"]["adapt"]["checksum"]
    assert [one.name for one in (tmp_path / "incoming").iterdir()]


def test_a_second_wizard_in_the_same_folder_is_refused(
    lab: Lab, base: Path, run: Run, tmp_path: Path
) -> None:
    config = write_config(tmp_path, lab.name_, base)
    arguments = ("calibrate", str(config), "--auto", "--json", "--folder", str(tmp_path / FOLDER))
    first = run(*arguments)
    wait_until(lambda: (tmp_path / FOLDER / ".lock").exists() or not first.is_alive)
    wait_until(lambda: (tmp_path / FOLDER / ".lock").read_text() == str(first.popen.pid))
    second = run(*arguments)
    assert second.code() == 2
    assert f"another wizard (process {first.popen.pid}) works in" in second.err
    assert first.is_alive


def test_without_a_terminal_it_says_what_to_do(run: Run, tmp_path: Path) -> None:
    wizard = run("calibrate", str(write_config(tmp_path, "nobody", tmp_path)))
    assert wizard.code() == 2
    assert "use --auto" in wizard.err


def test_what_must_be_mended_first_stops_an_unattended_run(run: Run, tmp_path: Path) -> None:
    config = write_config(
        tmp_path, unique("nobody"), tmp_path / "no-bundle", deploy={"control": "tcp://127.0.0.1:9"}
    )
    wizard = run("calibrate", str(config), "--auto", "--json", "--folder", str(tmp_path / FOLDER))
    assert wizard.code() == 4
    told = json.loads(wizard.out)["error"]
    assert "no decoder bundle at" in told
    assert "no spikeloop daemon answered" in told
