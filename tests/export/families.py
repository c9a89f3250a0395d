"""One small real decoder of each family, with several token buckets."""

from __future__ import annotations

from pathlib import Path

from export.bundle import DecoderBundle, open_bundle
from export.graphs.poyo import PoyoOutput, export_poyo
from export.random_bundles.derived import derive_bundle
from export.shipped import bundle_path
from tests.decoders.poyo_windows import random_network, tiny_config, write_lightning

VELOCITY = PoyoOutput("velocity", "cm/s", offset=[1.0, -2.0], scale=[20.0, 10.0])


def write_poyo_bundle(out: Path, n_units: int = 12) -> DecoderBundle:
    network = random_network(tiny_config(), n_units)
    checkpoint = out.with_suffix(".ckpt")
    write_lightning(checkpoint, network.state_dict(), network.config)
    return export_poyo(checkpoint, out, hop_s=0.1, outputs=[VELOCITY], max_tokens=500)


def write_streaming_bundle(out: Path, n_units: int = 150) -> DecoderBundle:
    demo = open_bundle(bundle_path("shipped:demo"))
    keys = [f"u{i}" for i in range(n_units)]
    return derive_bundle(demo, out, unit_keys=keys, hop_s=0.02, bin_s=0.04)
