"""Backends for tables are opened once, take turns, and keep their spares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.backends.opening import OpenedBackend, open_backend
from export.bundle import DecoderBundle, open_bundle
from export.errors import BackendError
from export.random_bundles.derived import derive_bundle
from service.deploy.failover import Failover
from service.deploy.table_backends import TableBackends, network_of
from service.loop.commands import RefusedError
from service.loop.decoder import Decoder
from service.loop.shaping import Shaper
from service.loop.slots import DecoderSlot
from service.loop.validity import ValidityJudge
from tests.export.tiny_graph import write_tiny_bundle
from tests.service.beat_rig import KEEP_ALIVE_S, UNIT_KEYS, BeatRig

CPU, MOST_S = "onnxruntime-cpu", 60.0


@pytest.fixture
def steps(bundle: DecoderBundle, tmp_path: Path) -> list[DecoderBundle]:
    """The same graph, each with tables of its own."""
    for i in range(5):
        derive_bundle(
            bundle, tmp_path / f"step-{i}", unit_keys=UNIT_KEYS, hop_s=0.02, bin_s=0.02,
            name=f"step-{i}", seed=20 + i,
        )  # fmt: skip
    return [open_bundle(tmp_path / f"step-{i}") for i in range(5)]


class Rig:
    """A loop, what keeps spares for it, and what opens backends for tables."""

    def __init__(self, rig: BeatRig, bundle: DecoderBundle) -> None:
        self.rig, self.told = rig, list[tuple[str, object]]()
        self.failover = Failover(
            rig.loop,
            lambda bundle, opened: self.slot_of(bundle, opened),
            lambda event, detail: self.told.append((event, detail)),
            MOST_S,
        )
        opened = open_backend(bundle, CPU)
        self.failover.prepare(bundle, replace(opened, next_choices=(CPU,)))
        self.backends = TableBackends(rig.loop, self.failover, MOST_S)
        self.k = rig.warm()

    def slot_of(self, bundle: DecoderBundle, opened: OpenedBackend) -> DecoderSlot:
        manifest = bundle.manifest
        decoder = Decoder(manifest, opened.backend, bundle.row_of_key, self.rig.source_keys)
        decoder.k_reset = decoder.last_k = self.rig.loop.last_k
        judge = ValidityJudge(manifest.context_s, manifest.stale_after_s, KEEP_ALIVE_S, 0.02)
        return DecoderSlot(decoder, judge, Shaper(manifest.outputs), tables_only=True)

    def exchange(self, bundle: DecoderBundle) -> OpenedBackend:
        """As `Deployer` does."""
        opened = self.backends.open(bundle)
        slot = self.slot_of(bundle, opened)
        self.backends.keep(slot, bundle, opened)
        asked = self.rig.ask("tables_swapped", slot=slot)
        self.k += 1
        assert self.rig.fed_turn(self.k).decoder_id == bundle.manifest.name
        assert asked.error == ""
        self.backends.open_ahead(bundle)
        return opened


def test_two_take_turns_and_each_has_its_tables_and_a_spare(
    rig: BeatRig, bundle: DecoderBundle, steps: list[DecoderBundle]
) -> None:
    whole = Rig(rig, bundle)
    found = [whole.exchange(step) for step in steps]
    backends = [opened.backend for opened in found]
    assert backends[0] is backends[2] is backends[4]
    assert backends[1] is backends[3]
    assert backends[0] is not backends[1]
    for name, table in steps[-1].tables.items():
        np.testing.assert_array_equal(found[-1].backend._tables[name], table)  # type: ignore[attr-defined]
    assert whole.failover.spare == CPU
    spare = whole.failover.take_spare(steps[-1].manifest.id)
    assert spare is not None
    assert spare.backend not in backends
    for name, table in steps[-1].tables.items():
        np.testing.assert_array_equal(spare.backend._tables[name], table)  # type: ignore[attr-defined]
    # Yesterday's, which stands by, keeps its own.
    assert whole.failover.take_spare(bundle.manifest.id) is not None
    assert whole.told == []


def test_the_same_decoder_by_tables_leaves_the_spare_of_the_one_that_stands_by(
    rig: BeatRig, bundle: DecoderBundle, steps: list[DecoderBundle]
) -> None:
    """As where an exchange is tried with the decoder that is in service."""
    whole = Rig(rig, bundle)
    for one in (bundle, *steps[:3]):
        whole.exchange(one)
        assert whole.failover.spare == CPU
    assert whole.failover.take_spare(bundle.manifest.id) is not None


def test_a_backend_that_failed_is_not_used_again(
    rig: BeatRig, bundle: DecoderBundle, steps: list[DecoderBundle]
) -> None:
    whole = Rig(rig, bundle)
    first, second = whole.exchange(steps[0]), rig.loop.slots.active
    whole.exchange(steps[1])
    second.decoder.failure = BackendError("gone")
    assert whole.exchange(steps[2]).backend is not first.backend


def test_tables_of_another_network_are_refused(
    rig: BeatRig, bundle: DecoderBundle, tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / "other", UNIT_KEYS, with_position=True, seed=5)
    assert network_of(other) != network_of(bundle)
    with pytest.raises(RefusedError, match="its network is not that of 'tiny'"):
        Rig(rig, bundle).backends.open(other)
