"""The decodes as an LSL stream, so that LabRecorder records them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from streams.lsl.inlets import find_inlet, visible_streams
from streams.messages import Float64s, Validity
from tests.system.conftest import UNIT_KEYS, DaemonStarter
from tests.system.running import keep_on, wait_until
from tests.system.sources import Living


def as_sample(decode: dict[str, Any]) -> list[float]:
    """A decode as the outlet's channels."""
    value = decode["value"]
    position = value["position"] or [math.nan, math.nan]
    validity = float(Validity[decode["validity"].upper()])
    return [*value["velocity"], *position, validity, decode["seq"], decode["beat"]]


def test_the_outlet_carries_what_the_messages_carry(
    serve: DaemonStarter, bundle: Path, stream: str
) -> None:
    source = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle)
    daemon.until_validity("ok", source.send_due)
    inlet = find_inlet("Decoder", name=f"{stream}-decodes")
    assert (inlet.description.format, inlet.description.rate_hz) == ("double64", 0.0)
    assert inlet.labels == (
        "velocity_0", "velocity_1", "position_0", "position_1", "validity", "seq", "beat",
    )  # fmt: skip
    inlet.open()
    samples: list[Float64s] = []
    stamps: list[float] = []

    def pull() -> None:
        source.send_due()
        daemon.listen()
        values, t_s = inlet.pull(0.0)
        samples.extend(values)
        stamps.extend(t_s.tolist())

    wait_until(lambda: samples and samples[-1][4] == Validity.OK, pull)
    daemon.ask("pause")
    wait_until(lambda: any(np.isnan(sample[2]) for sample in samples), pull)
    daemon.ask("resume")
    wait_until(lambda: samples[-1][4] == Validity.OK, pull)
    keep_on(0.2, pull)
    wait_until(lambda: daemon.heard.decodes[-1]["seq"] >= samples[-1][5], daemon.listen)
    by_seq = {decode["seq"]: decode for decode in daemon.heard.decodes}
    assert [sample[5] for sample in samples] == list(
        range(int(samples[0][5]), int(samples[-1][5]) + 1)
    )
    for sample, t_s in zip(samples, stamps, strict=True):
        decode = by_seq[int(sample[5])]
        assert t_s == decode["t_window"]
        np.testing.assert_array_equal(sample, as_sample(decode))
    assert {int(sample[4]) for sample in samples} >= {Validity.OK, Validity.PAUSED}
    assert f"{stream}-decodes" in {seen.name for seen in visible_streams(3.0)}
    inlet.close()
    assert daemon.end() == 0
    source.close()


def test_the_outlet_can_be_left_out(serve: DaemonStarter, bundle: Path, stream: str) -> None:
    source = Living(stream, UNIT_KEYS)
    daemon = serve(stream, bundle, output={"lsl_outlet": False})
    daemon.until_validity("ok", source.send_due)
    assert f"{stream}-decodes" not in {seen.name for seen in visible_streams(0.5)}
    assert daemon.end() == 0
    source.close()
