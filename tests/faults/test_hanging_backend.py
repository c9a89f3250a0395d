"""A backend stops returning: the safe value leaves in time, and the daemon ends or fails over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import StreamLostError, UnreachableError
from streams.lsl.inlets import find_inlet
from streams.messages import Validity
from streams.wire.authentication import new_pair
from streams.wire.clients import Client
from streams.wire.curve_keys import add_client, read_curve_keys, write_curve_keys
from streams.wire.roles import Role
from streams.wire.schema import Command, decode_reply, encode
from streams.wire.sockets import request
from tests.faults.hanging_backend import NAME, SWITCH
from tests.faults.seen import Seen
from tests.system import running
from tests.system.conftest import DaemonStarter
from tests.system.running import Daemon, clock, keep_on, wait_until
from tests.system.sender_process import SenderProcess

CPU = "onnxruntime-cpu"
SAFE_WITHIN_S = 0.5
HOWS = ("gil", "free")


class Switch:
    """Lets the backend `hanging` of this test's daemons hang."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on(self, where: str, how: str) -> float:
        """Let it hang from now on; return when."""
        beside = self._path.with_suffix(".part")
        beside.write_text(f"{where} {how}")
        os.replace(beside, self._path)
        return clock.now()


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    path = tmp_path / "hang"
    monkeypatch.setenv(SWITCH, str(path))
    monkeypatch.setattr(running, "_RUN", f"import tests.faults.hanging_backend; {running._RUN}")
    yield Switch(path)
    path.unlink(missing_ok=True)


def decoder(bundle: Path, fallback: list[str], **more: object) -> dict[str, object]:
    return {"bundle": str(bundle), "backend": NAME, "fallback": fallback, **more}


def listen_on(daemon: Daemon, until_s: float) -> list[tuple[float, dict]]:
    """What is published until then, each with when it came; the daemon may end meanwhile."""
    heard: list[tuple[float, dict]] = []
    n = len(daemon.heard.decodes)

    def listen() -> None:
        daemon.listen()
        heard.extend((clock.now(), d) for d in daemon.heard.decodes[n + len(heard) :])

    wait_until(lambda: clock.now() >= until_s, listen)
    return heard


def status(daemon: Daemon) -> str:
    """The validity that `status` tells; "" where it is declined or nobody answers."""
    try:
        reply = decode_reply(request(daemon.control, encode(Command(command="status")), 0.1))
    except UnreachableError:
        return ""
    return str(reply.result["validity"]) if reply.ok else ""


@pytest.mark.parametrize("how", [*HOWS, "crash"])
def test_in_service_the_safe_value_leaves_in_time_and_the_daemon_ends(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    switch: Switch,
    how: str,
    seen: Seen,
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, []))
    daemon.until_validity("ok")
    t_hung_s = seen.fault(daemon, t_s=switch.on("step", how))
    heard = listen_on(daemon, t_hung_s + 2.0)
    t_fault_s, fault = next((t, d) for t, d in heard if d["validity"] == "fault")
    assert t_fault_s - t_hung_s < SAFE_WITHIN_S
    assert fault["reason"] == "hung"
    assert fault["value"] == {"velocity": [0.0, 0.0], "position": None}
    assert {d["reason"] for t, d in heard if t >= t_fault_s} == {"hung"}
    seqs = [d["seq"] for _, d in heard]
    assert seqs == sorted(set(seqs))
    assert any(event["event"] == "hung" for event in daemon.heard.events)
    assert daemon.code() == 1
    assert ("died of SIGSEGV" if how == "crash" else "did not return") in daemon.err
    assert not daemon.left_running()


def test_the_safe_value_leaves_in_the_form_that_is_asked_for(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, switch: Switch
) -> None:
    packed = {"format": "packed"}
    daemon = serve(stream, bundle, decoder=decoder(bundle, []), output=packed)
    daemon.until_validity("ok")
    heard = listen_on(daemon, switch.on("step", "gil") + 1.0)
    fault = next(d for _, d in heard if d["reason"] == "hung")
    assert fault["validity"] == "fault"
    assert fault["value"]["velocity"] == [0.0, 0.0]


def test_the_safe_value_leaves_to_listed_clients_though_the_list_is_broken_by_then(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    switch: Switch,
    tmp_path: Path,
) -> None:
    keys, (public, secret) = tmp_path / "keys", new_pair()
    write_curve_keys(keys, new_pair(), new_pair())
    own = add_client(keys, Client("ada", Role.WATCH, public), secret)
    output = {"keys": str(keys / "server.json"), "clients": str(keys / "clients.toml")}
    daemon = serve(stream, bundle, decoder=decoder(bundle, []), output=output)
    daemon.keys = read_curve_keys(own)
    daemon.until(lambda heard: len(heard.heartbeats) > 1)
    (keys / "clients.toml").write_text("[[client]")
    daemon.until_event("clients_changed")
    heard = listen_on(daemon, switch.on("step", "gil") + 1.0)
    assert "hung" in {d["reason"] for _, d in heard}


@pytest.mark.parametrize("how", HOWS)
def test_status_does_not_say_ok_meanwhile(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, switch: Switch, how: str
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, []))
    daemon.until_validity("ok")
    assert status(daemon) == "ok"
    t_hung_s = switch.on("step", how)
    keep_on(0.12, lambda: None)
    told = []
    while clock.now() < t_hung_s + 1.0:
        told.append(status(daemon))
    assert "ok" not in told
    assert daemon.code() == 1


@pytest.mark.long
@pytest.mark.parametrize("how", [*HOWS, "crash"])
def test_with_a_fallback_it_goes_on_with_that(
    serve: DaemonStarter,
    bundle: Path,
    stream: str,
    living: SenderProcess,
    switch: Switch,
    how: str,
    seen: Seen,
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, [CPU]))
    run_id = daemon.until_validity("ok")["run_id"]
    t_hung_s = seen.fault(daemon, t_s=switch.on("step", how))
    daemon.until(lambda heard: any(d["reason"] == "hung" for d in heard.decodes))
    assert clock.now() - t_hung_s < SAFE_WITHIN_S
    again = daemon.until_validity("ok")
    assert again["backend"] == CPU
    assert again["run_id"] != run_id
    assert daemon.ask("status").result["refused_backends"][NAME]
    assert daemon.end() == 0
    assert not daemon.left_running()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_the_start_a_signal_ends_it(
    serve: DaemonStarter, bundle: Path, stream: str, switch: Switch, how: str, number: int
) -> None:
    switch.on("open", how)
    daemon = serve(stream, bundle, decoder=decoder(bundle, []))
    daemon.connect()
    keep_on(0.3, lambda: None)
    daemon.signal(number)
    daemon.code()
    assert not daemon.left_running()


def test_at_the_start_the_command_stop_ends_it(
    serve: DaemonStarter, bundle: Path, stream: str, switch: Switch
) -> None:
    switch.on("open", "free")
    daemon = serve(stream, bundle, decoder=decoder(bundle, []))
    daemon.connect()
    assert daemon.ask("stop").ok
    daemon.code()
    assert not daemon.left_running()


@pytest.mark.parametrize("how", HOWS)
def test_a_start_that_hangs_ends_in_time(
    serve: DaemonStarter, bundle: Path, stream: str, switch: Switch, how: str
) -> None:
    switch.on("open", how)
    daemon = serve(stream, bundle, decoder=decoder(bundle, [], open_most_s=1.0))
    assert daemon.code() == 5
    assert "within 1 s" in daemon.err
    assert "Traceback" not in daemon.err


@pytest.mark.parametrize("how", ["gil", "crash"])
def test_a_start_that_hangs_takes_the_fallback(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, switch: Switch, how: str
) -> None:
    switch.on("open", how)
    daemon = serve(stream, bundle, decoder=decoder(bundle, [CPU], open_most_s=1.0))
    assert daemon.until_validity("ok")["backend"] == CPU


def test_a_swap_that_hangs_is_refused_in_time_and_the_daemon_ends_in_order(
    serve: DaemonStarter,
    bundle: Path,
    other: Path,
    stream: str,
    living: SenderProcess,
    switch: Switch,
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, [], open_most_s=1.0))
    daemon.until_validity("ok")
    switch.on("open", "free")
    assert daemon.send(encode(Command(command="swap", arguments={"bundle": str(other)}))).ok
    told: dict = {}

    def over() -> bool:
        told.update(daemon.ask("deployment").result)
        return bool(told["over"])

    wait_until(over, daemon.listen)
    assert "within 1 s" in told["refused"]
    assert daemon.until_validity("ok")["decoder_id"] != "other"
    assert daemon.ask("stop").ok
    assert daemon.finish() == 0
    assert daemon.heard.decodes[-1]["reason"] == "stopping"
    assert daemon.heard.events[-1]["event"] == "stopped"


def test_a_swap_that_holds_up_the_beat_ends_in_the_safe_value(
    serve: DaemonStarter,
    bundle: Path,
    other: Path,
    stream: str,
    living: SenderProcess,
    switch: Switch,
    seen: Seen,
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, []))
    daemon.until_validity("ok")
    t_hung_s = seen.fault(daemon, t_s=switch.on("open", "gil"))
    assert daemon.send(encode(Command(command="swap", arguments={"bundle": str(other)}))).ok
    heard = listen_on(daemon, t_hung_s + 2.0)
    assert next(t for t, d in heard if d["reason"] == "hung") - t_hung_s < 2 * SAFE_WITHIN_S
    assert daemon.code() == 1


def test_the_lsl_outlet_falls_silent_and_another_one_follows(
    serve: DaemonStarter, bundle: Path, stream: str, living: SenderProcess, switch: Switch
) -> None:
    daemon = serve(stream, bundle, decoder=decoder(bundle, [CPU]))
    daemon.until_validity("ok")
    name = f"{stream}-decodes"
    inlet = find_inlet("Decoder", name=name, recover=False)
    inlet.open()
    wait_until(lambda: len(inlet.pull(0.1)[1]), daemon.listen)
    t_hung_s = switch.on("step", "gil")
    stamps: list[float] = []
    with pytest.raises(StreamLostError):
        wait_until(lambda: stamps.extend(inlet.pull(0.05)[1]), daemon.listen)
    assert all(t_s < t_hung_s + SAFE_WITHIN_S for t_s in stamps)
    inlet.close()
    daemon.until(lambda heard: heard.decodes[-1]["backend"] == CPU)
    t_back_s = clock.now()
    again = find_inlet("Decoder", name=name, timeout_s=running.WITHIN_S)
    again.open()

    def is_ok() -> bool:
        samples, stamps = again.pull(0.1)
        assert all(t_s > t_hung_s for t_s in stamps)
        return any(
            s[4] == Validity.OK and t > t_back_s for s, t in zip(samples, stamps, strict=True)
        )

    wait_until(is_ok, daemon.listen)
    again.close()
