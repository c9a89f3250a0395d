"""`python -m benchmarks.recording_cost`: the loop with and without its recording, in turn."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import replace
from typing import Annotated, Any

from benchmarks.command import AsJson, HopMs, Option, RateHz, Rounds, Units, main
from service.bench import machine
from service.bench.loop import Settings, listen_beside_timer, start_daemon, start_sender
from service.bench.rig import Rig

WITH, WITHOUT = "recorded", "not recorded"


def run(
    units: Units = 1000,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 10.0,
    seconds: Annotated[float, Option(help="Length of each turn; the first ten settle.")] = 30.0,
    rounds: Rounds = 5,
    as_json: AsJson = False,
) -> int:
    """Measure end to end times and missed beats with the recording and without it, in turn."""
    before = machine.processor_ticks()
    base = Settings(units, rate, hop_ms * 1e-3, seconds, 5e-3)
    found: dict[str, list[dict[str, Any]]] = {WITHOUT: [], WITH: []}
    for i_round in range(rounds):
        # Each is the first as often as the other: what drifts meanwhile favours none.
        for name in (WITHOUT, WITH) if i_round % 2 == 0 else (WITH, WITHOUT):
            found[name].append(_measure(replace(base, record=name == WITH)))
            sys.stderr.write(f"round {i_round + 1} of {rounds}, {name}: {_told(found[name][-1])}\n")
    result = {
        "rounds": found,
        "ratios": _ratios(found),
        "settings": base.as_dict(),
        "machine": machine.describe(before),
    }
    sys.stdout.write(json.dumps(result) + "\n" if as_json else _table(result))
    return 0


def _measure(settings: Settings) -> dict[str, Any]:
    with Rig() as rig:
        endpoint = start_daemon(rig, "daemon", "spikeloop-cost", settings)
        start_sender(rig, "spikeloop-cost", settings, seconds=settings.seconds + 120)
        heard = listen_beside_timer(rig, endpoint, settings.hop_s, settings.seconds)
        size = sum(one.stat().st_size for one in (rig.path / "recordings").rglob("*.rec"))
        summary = heard.summary()
    kept = ("end_to_end_ms", "decode_ms", "missed_beats", "bare_timer_late", "beats", "backend")
    return {name: summary[name] for name in kept} | {"megabytes": size / 1e6}


def _ratios(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return recorded over not recorded: of each round, and of the medians over all rounds."""
    told = {}
    for which in ("p50", "p99"):
        with_, without = (
            [one["end_to_end_ms"][which] for one in found[name]] for name in (WITH, WITHOUT)
        )
        told[which] = {
            "rounds": [round(a / b, 3) for a, b in zip(with_, without, strict=True)],
            "of_medians": round(statistics.median(with_) / statistics.median(without), 3),
        }
    missed = {name: sum(one["missed_beats"] for one in found[name]) for name in found}
    return told | {"missed": missed}


def _told(one: dict[str, Any]) -> str:
    times = one["end_to_end_ms"]
    return (
        f"end to end p50 {times['p50']:.3f}, p99 {times['p99']:.3f} ms, missed "
        f"{one['missed_beats']} of {one['beats']} (bare timer {one['bare_timer_late']}), "
        f"{one['megabytes']:.1f} MB"
    )


def _table(result: dict[str, Any]) -> str:
    lines = [f"{name:14} {_told(one)}" for name, all_ in result["rounds"].items() for one in all_]
    for which in ("p50", "p99"):
        ratio = result["ratios"][which]
        told = f"{ratio['of_medians']} of the medians; rounds {ratio['rounds']}"
        lines.append(f"end to end {which}, recorded over not: {told}")
    return "\n".join([*lines, f"missed beats: {result['ratios']['missed']}"]) + "\n"


if __name__ == "__main__":
    main(run)
