"""The benchmark of driving: its morning by the wizard's own parts, and what it tells."""

from __future__ import annotations

from benchmarks.driving.__main__ import told
from benchmarks.driving.morning import Takes, live
from calibration.wizard.config import DriveSection
from export.bundle import open_bundle
from export.shipped import bundle_path

SUBJECT, DAY, SEED = 1, 25, 3000


def test_a_morning_in_which_the_subject_drives_from_second_15() -> None:
    takes, drive = Takes(begin_s=10.0), DriveSection(enabled=True)
    bundle = open_bundle(bundle_path("shipped:demo"))
    morning = live(bundle, SUBJECT, DAY, SEED, drive=drive, seconds=34.0, takes=takes)
    assert morning.drives[-1][1] == "today"
    # The first decoder, by what is told of its own trials, with all of the assistance.
    assert takes.begin_s + 5.0 < morning.first_s < takes.begin_s + 12.0
    assert morning.drives[0][2] == drive.assist
    # Nothing counts that the hand acquired.
    assert morning.acquired_s
    assert min(morning.acquired_s) > morning.first_s


def test_what_it_tells() -> None:
    def one(way: str, acquired_s: list[float], first_s: float) -> dict[str, object]:
        return {"day": 3, "seed": 0, "way": way, "acquired_s": acquired_s, "first_s": first_s}

    alone = one("driving", [1.0], 1.0) | {"seed": 1}
    text = told(
        [
            one("driving", [30.0 + i for i in range(40)], 25.0),
            one("before", [100.0 + i for i in range(10)] + [200.0], 90.0),
            one("gradient", [130.0 + i for i in range(5)], 120.0),
            alone,
        ]
    )
    assert "n 1, targets in 180 s 40.0" in text
    assert "targets in 180 s 10.0 +-0.0, then 1.0" in text
    assert "4.00 times as many targets as before" in text
    assert "8.00 times as many targets as gradient" in text
