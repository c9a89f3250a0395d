"""Tables alone go into a running daemon: at once, nothing lost, made again, and back again."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import pytest

from export.bundle import open_bundle, write_bundle
from export.random_bundles.derived import derive_bundle
from streams.wire.schema import Command, encode
from tests.export.tiny_graph import tiny_parts, write_tiny_bundle
from tests.recording.test_redecode import assert_made_again
from tests.system.conftest import HOP_S, UNIT_KEYS, DaemonStarter
from tests.system.running import Daemon
from tests.system.sources import Living
from tests.system.test_swap import assert_no_hole, stages, swap

N_STEPS = 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the others' tests have it, with bounds that no random tables leave."""
    path = tmp_path_factory.mktemp("wide") / "tiny"
    fields, contents = tiny_parts(UNIT_KEYS, HOP_S, HOP_S, with_position=True)
    wide = {"low": [-1e3] * 2, "high": [1e3] * 2}
    fields["outputs"] = [{**output, **wide} for output in fields["outputs"]]
    write_bundle(path, fields, **contents)
    return path


@pytest.fixture(scope="module")
def steps(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same graph, each with tables of its own; the last knows more units."""
    folder, made = tmp_path_factory.mktemp("steps"), []
    for i in range(N_STEPS):
        keys = UNIT_KEYS if i < N_STEPS - 1 else (*UNIT_KEYS, "u50")
        path = folder / f"step-{i}"
        derive_bundle(
            open_bundle(bundle), path, unit_keys=keys, hop_s=HOP_S, bin_s=HOP_S,
            name=path.name, seed=10 + i,
        )  # fmt: skip
        made.append(path)
    return made


@pytest.fixture
def recorded(
    serve: DaemonStarter, bundle: Path, stream: str, source: Living, tmp_path: Path
) -> Daemon:
    """A daemon that decodes, and whose run is recorded."""
    record = {"enabled": True, "folder": str(tmp_path / "recordings"), "part_mb": 0.05}
    daemon = serve(stream, bundle, record=record, shaping={"smoothing": 0.5})
    daemon.until_validity("ok", source.send_due)
    return daemon


@pytest.mark.alone
def test_every_step_is_told_and_made_again_and_yesterdays_stands_by(
    recorded: Daemon, source: Living, steps: list[Path], tmp_path: Path
) -> None:
    daemon = recorded
    i_first = len(daemon.heard.decodes) - 1  # one of before, however late the next is heard
    for i, step in enumerate(steps):
        result = swap(daemon, step, source.send_due, tables=True)
        assert not result["refused"]
        assert stages(result) == ["received", "loaded", "parity", "active"]
        status = daemon.ask("status").result
        assert status["decoder_id"] == f"step-{i}"
        assert status["graph"] == open_bundle(step).graph_sha256
        assert status["standby"] == daemon.heard.decodes[0]["checksum"]
        daemon.until_validity("ok", source.send_due)
    assert daemon.ask("rollback").ok
    daemon.until_validity("ok", source.send_due)
    told = [event["detail"] for event in daemon.heard.events if event["event"] == "tables_swapped"]
    assert [one["decoder_id"] for one in told] == [step.name for step in steps]
    served = list(dict.fromkeys(one["decoder_id"] for one in daemon.heard.decodes[i_first:]))
    assert served == ["tiny", *(step.name for step in steps)]
    assert daemon.heard.decodes[-1]["decoder_id"] == "tiny"
    assert_no_hole(daemon, i_first)
    report = assert_made_again(daemon, tmp_path / "recordings")
    assert len(report["by_decoder"]) == N_STEPS + 1


def test_a_decoder_of_another_network_is_refused(
    daemon: Daemon, source: Living, tmp_path: Path
) -> None:
    write_tiny_bundle(tmp_path / "net", UNIT_KEYS, HOP_S, HOP_S, with_position=True, seed=9)
    result = swap(daemon, tmp_path / "net", source.send_due, tables=True)
    assert "its network is not that of 'tiny'" in result["refused"]
    assert daemon.ask("status").result["decoder_id"] == "tiny"
    assert not swap(daemon, tmp_path / "net", source.send_due)["refused"]


@pytest.mark.alone
def test_who_exchanged_tables_and_is_gone_leaves_the_decoder_of_before(
    daemon: Daemon, source: Living, steps: list[Path]
) -> None:
    def events() -> list[str]:
        return [one["event"] for one in daemon.heard.events]

    assert not daemon.ask("keep").result["kept"]
    assert not swap(daemon, steps[0], source.send_due, tables=True, keep_s=6.0)["refused"]
    t_end_s = monotonic() + 8.0
    while monotonic() < t_end_s:
        assert daemon.ask("keep").result["kept"]
        source.send_due()
    assert daemon.ask("status").result["decoder_id"] == "step-0"
    daemon.until(lambda heard: "rollback" in events(), source.send_due)
    assert [one for one in events() if one in ("driver_gone", "rollback")] == [
        "driver_gone",
        "rollback",
    ]
    assert daemon.ask("status").result["decoder_id"] == "tiny"
    assert not daemon.ask("keep").result["kept"]
    assert not swap(daemon, steps[0], source.send_due, tables=True, keep_s=6.0)["refused"]
    for_good = encode(Command(command="keep", arguments={"for_good": True}))
    assert daemon.send(for_good).result["kept"]
    t_end_s = monotonic() + 7.0
    daemon.until(lambda heard: monotonic() > t_end_s, source.send_due)
    told = [
        one for one in events() if one in ("driver_gone", "rollback", "rolled_back_out_of_range")
    ]
    assert told == ["driver_gone", "rollback"]  # those of before
    assert daemon.ask("status").result["decoder_id"] == "step-0"


def test_tables_are_never_on_trial(daemon: Daemon, steps: list[Path]) -> None:
    arguments = {"bundle": str(steps[0]), "tables": True, "hold": True}
    reply = daemon.send(encode(Command(command="swap", arguments=arguments)))
    assert not reply.ok
    assert "leave shadow_s and hold out" in reply.error
