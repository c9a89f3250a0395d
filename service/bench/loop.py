"""`spikeloop bench loop`: sender, daemon, subscriber and a bare timer in processes of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.bundle import open_bundle
from export.generated import derive_bundle
from service.bench.rig import Listener, Rig
from service.bench.screen import show
from service.bench.sender import unit_keys
from service.errors import ExitCode
from service.serve import bundle_path

PRIORITY = 50
"""Asked for as a rig would; where it is not permitted the daemon says so and goes on."""


def bench_loop(
    *,
    n_units: int,
    rate_hz: float,
    hop_s: float,
    seconds: float,
    block_s: float,
    base: str | None,
    as_json: bool,
) -> int:
    """Measure the loop over a generated bundle, and print what came out.

    Args:
        n_units: units sent.
        rate_hz: spikes per second of each.
        hop_s: between beats.
        seconds: how long to measure.
        block_s: how the sender blocks its spikes.
        base: bundle whose graph is used; None for the shipped one.
        as_json: one JSON object instead of a table.

    Returns:
        8 when spikes were dropped or beats missed beyond the bare timer's, else 0.
    """
    with Rig() as rig:
        result = _measure(rig, n_units, rate_hz, hop_s, seconds, block_s, base)
    show("bench loop", result, as_json=as_json)
    return ExitCode.DONE if held(result) else ExitCode.BELOW_THRESHOLD


def held(result: dict[str, Any]) -> bool:
    """Whether every spike had its place and the beat was as punctual as the machine."""
    return bool(result["spikes_dropped"] == 0 and punctual(result))


def punctual(result: dict[str, Any]) -> bool:
    """Missed beats are no more than the bare timer's late ones times 1.2, and two."""
    return bool(result["missed_beats"] <= result["bare_timer_late"] * 1.2 + 2)


def _measure(
    rig: Rig,
    n_units: int,
    rate_hz: float,
    hop_s: float,
    seconds: float,
    block_s: float,
    base: str | None,
) -> dict[str, Any]:
    name = f"spikeloop-bench-{os.getpid()}"
    keys = unit_keys(n_units)
    derive_bundle(
        open_bundle(bundle_path(base or "shipped:demo")),
        rig.path / "bundle",
        unit_keys=keys,
        hop_s=hop_s,
        bin_s=hop_s,
        name="generated",
        seed=0,
    )
    config = rig.path / "serve.toml"
    config.write_text(_config(rig.path / "bundle", name, n_units * rate_hz))
    announced = rig.path / "daemon.json"
    rig.start("daemon", "serve", str(config), "--log", "json", "--announce", str(announced))
    endpoint = rig.wait_for_file(announced, "daemon")["decode"]
    rig.start(
        "sender", "bench", "sender", "--name", name, "--units", str(n_units), "--rate",
        str(rate_hz), "--block-ms", str(block_s * 1e3), "--seconds", str(seconds + 120),
    )  # fmt: skip
    return listen_beside_timer(rig, endpoint, hop_s, seconds).summary()


def listen_beside_timer(
    rig: Rig,
    endpoint: str,
    hop_s: float,
    seconds: float,
    also: Callable[[dict[str, Any] | None], None] = lambda decode: None,
) -> Listener:
    """Listen for `seconds` while a bare timer of the same hop runs beside.

    Args:
        rig: with the processes `daemon` and, from the first decode on, `timer`.
        endpoint: the daemon's decodes.
        hop_s: between beats.
        seconds: how long.
        also: called with each decode, and with None when none came for a while.

    Returns:
        What was received; `bare_timer` filled in.
    """
    listener = Listener()

    def each(decode: dict[str, Any] | None) -> None:
        rig.check("daemon")
        if len(listener.decodes) == 1 and decode is not None:
            hop_ms = str(hop_s * 1e3)
            rig.start("timer", "bench", "timer", "--hop-ms", hop_ms, "--seconds", "100000")
        also(decode)

    listener.listen(endpoint, seconds, each)
    listener.bare_timer = json.loads(rig.end("timer"))
    return listener


def _config(bundle: Path, name: str, spikes_per_s: float) -> str:
    return (
        f'[input]\nname = "{name}"\nwait_s = 60.0\n'
        f"budget_spikes_per_s = {max(50_000, round(2 * spikes_per_s))}\n"
        f'[decoder]\nbundle = "{bundle}"\n'
        '[output]\ndecode = "tcp://127.0.0.1:*"\ncontrol = "tcp://127.0.0.1:*"\n'
        f'lsl_name = "{name}-decodes"\n'
        f"[realtime]\npriority = {PRIORITY}\n"
    )
