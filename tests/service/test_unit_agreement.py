"""The number that tells without labels what units' changes cost, and the advice built on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import open_bundle
from export.manifest import Manifest
from service.telemetry.unit_agreement import (
    ADVISED_R2,
    Seen,
    UnitAgreement,
    reference_in,
)
from streams.messages import Float64s
from streams.spikes.agreement import AT_LEAST_S, BIN_S, reference_of
from tests.streams.test_agreement import KEYS, N_UNITS, R2, counts_of, tuning

DEMO = Path(__file__).parents[2] / "configs" / "bundles" / "demo"
SOURCE_KEYS = (*reversed(KEYS), "u-unknown")


def manifest(agreement: dict[str, Any] | None, id_: str = "a") -> Manifest:
    said = open_bundle(DEMO).manifest
    training = {**said.training, "agreement": agreement} if agreement else said.training
    return said.model_copy(update={"training": training, "id": id_})


def calibrated(id_: str = "a") -> Manifest:
    found = reference_of(KEYS, *counts_of(tuning(0)), R2)
    assert found is not None
    return manifest(found.as_json(), id_)


def seen_in(
    units: UnitAgreement, counts: Float64s, said: Manifest, *, is_ok: bool = True
) -> list[dict[str, Any]]:
    """Take counts of the reference's units, in the source's order; the advice that came."""
    total, advice = np.zeros(len(SOURCE_KEYS), np.int64), []
    for row in counts:
        total[:N_UNITS] += row[::-1].astype(np.int64)
        total[N_UNITS] += 3  # a unit that the decoder does not know
        advice.append(units.take(Seen(said, total.copy(), is_ok), is_whole=True))
    return [one for one in advice if one is not None]


def test_the_same_units_cost_nothing_and_nothing_is_advised() -> None:
    units = UnitAgreement(SOURCE_KEYS)
    assert not seen_in(units, counts_of(tuning(0), seed=1)[0], calibrated())
    told = units.report()
    assert told["r2_lost"] < 0.5 * ADVISED_R2
    assert not told["advised"]


def test_units_that_became_others_are_told_with_what_a_calibration_gains() -> None:
    units = UnitAgreement(SOURCE_KEYS)
    advice = seen_in(units, counts_of(tuning(1), seed=1)[0], calibrated())
    # Once, however long it lasts.
    (one,) = advice
    assert one["r2_gain"] > ADVISED_R2
    assert f"{one['r2_gain']:.2f} of R2" in one["warning"]
    assert units.report()["advised"]


def test_another_decoder_begins_anew() -> None:
    units = UnitAgreement(SOURCE_KEYS)
    seen_in(units, counts_of(tuning(1), seed=1)[0], calibrated())
    units.take(Seen(calibrated("b"), np.zeros(len(SOURCE_KEYS), np.int64), True), is_whole=True)
    assert units.moved is None
    assert not units.report()["advised"]
    assert units.seconds == 0.0


def test_what_is_not_ok_counts_for_nothing_nor_does_a_decoder_without_reference() -> None:
    units = UnitAgreement(SOURCE_KEYS)
    counts, _ = counts_of(tuning(1), seed=1)
    assert not seen_in(units, counts, calibrated(), is_ok=False)
    assert units.report() == {"seconds": 0.0, "share": None, "r2_lost": None, "advised": False}
    assert not seen_in(units, counts, manifest(None, "b"))
    assert units.moved is None


def test_nothing_is_said_before_enough_was_heard() -> None:
    units = UnitAgreement(SOURCE_KEYS)
    few = round(0.9 * AT_LEAST_S / BIN_S)
    seen_in(units, counts_of(tuning(1), seed=1)[0][:few], calibrated())
    assert units.moved is None


def test_a_reference_that_is_none_is_passed_over() -> None:
    told = calibrated().training["agreement"]
    assert isinstance(told, dict)
    for broken in ({}, {**told, "keys": ["one"]}, {**told, "mean": "text"}, {**told, "r2": None}):
        assert reference_in(manifest(broken or {"keys": 3})) is None
