"""`python -m benchmarks.recorded_run`: a run with everything in it, recorded and decoded again."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import msgspec

from benchmarks.command import AsJson, HopMs, Option, RateHz, Units, main
from benchmarks.recorded_run.scenario import Asked, Heard, Scenario
from service.bench.rig import Rig
from service.redecode.comparison import redecode
from service.redecode.reading import open_run
from service.redecode.told import summary
from service.telemetry.recording.frames import parts_of, runs_in
from service.telemetry.recording.records import Said
from streams.wire.schema import Decode


def run(
    seconds: Annotated[float, Option(help="Length of the run, about.")] = 60.0,
    units: Units = 1000,
    rate: RateHz = 20.0,
    hop_ms: HopMs = 10.0,
    part_mb: Annotated[float, Option(help="Size of the recording's parts.")] = 8.0,
    token_cap: Annotated[int | None, Option(help="Tokens a beat at most.")] = None,
    folder: Annotated[Path | None, Option(help="Keep bundles and recordings here.")] = None,
    as_json: AsJson = False,
) -> int:
    """Record a run with a swap, pause, shaping, outage, late spikes and failover; kill -9 it.

    Then every decode is made again from the record and compared. Ends with code 8 where one
    differs, one that was heard is not in the record, or more than half a second was lost.
    """
    with tempfile.TemporaryDirectory(prefix="spikeloop-recorded-") as scratch:
        asked = Asked(
            seconds, units, rate, hop_ms * 1e-3, part_mb, token_cap, folder or Path(scratch)
        )
        with Rig() as rig:
            heard = Scenario(rig, asked, _say).play()
        path = runs_in(asked.folder / "recordings")[-1]
        result = {"heard": _told(heard), "record": recorded(path, heard)}
        found = redecode(path, [])
    result["redecode"] = found.report
    record = result["record"]
    holds = found.holds and not record["differing_from_heard"] and record["lost_s"] <= 0.5
    sys.stdout.write(json.dumps(result) + "\n" if as_json else _table(result))
    return 0 if holds else 8


def recorded(path: Path, heard: Heard) -> dict[str, Any]:
    """Compare the decodes that a client heard with those that were recorded."""
    said, decoder, newest_s = dict[int, Any](), msgspec.json.Decoder(Decode), 0.0
    for one in open_run(path).records():
        if isinstance(one, Said) and one.topic == "decode":
            decode = decoder.decode(one.decode)
            said[decode.seq], newest_s = decode.value_raw, max(newest_s, decode.t_window)
    both = heard.raw_of_seq.keys() & said.keys()
    size, hours = sum(part.stat().st_size for part in parts_of(path)), heard.seconds / 3600
    return {
        "path": str(path),
        "parts": len(parts_of(path)),
        "megabytes": size / 1e6,
        "megabytes_per_hour": size / 1e6 / hours if hours else None,
        "decodes": len(said),
        "heard_and_recorded": len(both),
        "differing_from_heard": sum(heard.raw_of_seq[seq] != said[seq] for seq in both),
        "lost_s": max(0.0, heard.newest_s - newest_s),
    }


def _told(heard: Heard) -> dict[str, Any]:
    return {
        "decodes": len(heard.raw_of_seq),
        "seconds": heard.seconds,
        "validities": heard.validities,
        "fates": heard.fates,
        "late": heard.n_late,
        "skipped": heard.skipped,
        "events": [name for name, _ in heard.events],
    }


def _table(result: dict[str, Any]) -> str:
    heard, record = result["heard"], result["record"]
    lines = [
        f"heard {heard['decodes']} decodes in {heard['seconds']:.0f} s: {heard['validities']}",
        f"spikes by fate: {heard['fates']}",
        f"beats late {heard['late']}, skipped {heard['skipped']}",
        f"recorded {record['decodes']} decodes in {record['parts']} parts, "
        f"{record['megabytes']:.1f} MB, {record['megabytes_per_hour']:.0f} MB an hour",
        f"heard and recorded {record['heard_and_recorded']}, differing "
        f"{record['differing_from_heard']}; lost at kill -9: {record['lost_s']:.3f} s",
    ]
    return "\n".join(lines) + "\n" + summary(result["redecode"])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main(run)
