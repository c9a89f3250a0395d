"""`configs/calibrate.toml`: where the streams are, how much to collect, what is good enough."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from calibration.errors import WizardError
from streams.config_file import Section, SpikesInput, read_config


class CalibrationSection(Section):
    """`[calibration]`: whose, from which decoder, and where things are kept."""

    subject: str = Field("subject", pattern=r"^[^/\s]+$")
    folder: str = Field("calibrations", min_length=1)
    registry: str = Field("bundles", min_length=1)
    base: str = ""
    same_array: bool = True
    follow_drift: bool = True
    seed: int = Field(0, ge=0)


class SpikesSection(SpikesInput):
    """`[spikes]`: the LSL stream, as in the daemon's config."""

    budget_per_s: float = Field(50_000.0, gt=0, strict=False)


class MarkersSection(Section):
    """`[markers]`: what says when trials start and stop."""

    type: str = Field("Markers", min_length=1)
    name: str = ""
    hostname: str = ""
    trial_start: str = Field("trial_start", min_length=1)
    trial_stop: str = Field("trial_stop", min_length=1)


class BehaviorSection(Section):
    """`[behavior]`: the position, and the targets' where they are sent."""

    type: str = Field("Position", min_length=1)
    name: str = ""
    hostname: str = ""
    body: str = Field("cursor", min_length=1)
    channels: tuple[str, ...] = Field((), strict=False)


class CuesSection(Section):
    """`[cues]`: our own task, for labs that have none: it shows targets and sends all three."""

    builtin: bool = False
    n_targets: int = Field(8, ge=3, le=16)
    reach_cm: float = Field(10.0, gt=0, strict=False)
    move_s: float = Field(1.0, ge=0.2, le=10, strict=False)
    hold_s: float = Field(0.4, ge=0, le=10, strict=False)


class CollectSection(Section):
    """`[collect]`: how much is enough."""

    check_s: float = Field(5.0, ge=2, le=60, strict=False)
    learn_s: float = Field(60.0, ge=5, le=3600, strict=False)
    verify_s: float = Field(20.0, ge=3, le=3600, strict=False)
    most_s: float = Field(300.0, ge=10, le=7200, strict=False)
    fewest_trials: int = Field(16, ge=4)
    wait_s: float = Field(5.0, gt=0, le=3600, strict=False)
    patience_s: float = Field(30.0, ge=2, le=3600, strict=False)


class LearnSection(Section):
    """`[learn]`: how today's decoder is made, and when there is enough."""

    way: Literal["closed-form", "gradient"] = "closed-form"
    first_s: float = Field(10.0, ge=5, le=600, strict=False)
    every_s: float = Field(5.0, ge=1, le=60, strict=False)
    least_gain: float = Field(0.01, ge=0, le=1, strict=False)
    hold_out: bool = False


class DriveSection(Section):
    """`[drive]`: the subject drives while trials are collected, by the newest decoder's tables."""

    enabled: bool = False
    assist: float = Field(0.75, ge=0, le=1, strict=False)
    full_r2: float = Field(0.5, le=1, strict=False)
    least_r2: float = Field(0.15, le=1, strict=False)
    over_yesterday: float = Field(-0.1, le=2, strict=False)
    over_shuffled: float = Field(0.1, le=2, strict=False)
    fewest_trials: int = Field(3, ge=2, le=100)
    recent_trials: int = Field(8, ge=3, le=100)
    on_target: float = Field(0.5, ge=0, strict=False)
    least_gain: float = Field(0.003, ge=0, le=1, strict=False)
    least_s: float = Field(120.0, ge=0, le=7200, strict=False)
    max_speed: float = Field(0.0, ge=0, strict=False)


class DecideSection(Section):
    """`[decide]`: what a decoder must reach on held-out trials; R2 is the mean over dimensions."""

    least_r2: float = Field(0.4, le=1, strict=False)
    over_shuffled: float = Field(0.2, le=2, strict=False)
    over_yesterday: float = Field(-0.03, le=2, strict=False)
    over_wiener: float = Field(-0.05, le=2, strict=False)


class DeploySection(Section):
    """`[deploy]`: the running daemon; `control = ""` for none."""

    control: str = "tcp://127.0.0.1:5571"
    keys: str = ""
    send: bool = False
    shadow_s: float = Field(5.0, ge=0, le=600, strict=False)
    watch_s: float = Field(10.0, ge=1, le=600, strict=False)
    least_ok: float = Field(0.95, ge=0, le=1, strict=False)


class SignSection(Section):
    """`[sign]`: the key that signs decoders, where the daemon demands it; "" for none."""

    key: str = ""


class RecalibrateSection(Section):
    """`[recalibrate]`: blocks in which the subject drives, each with less assistance."""

    assist: tuple[float, ...] = Field((), strict=False)
    block_s: float = Field(40.0, ge=5, le=3600, strict=False)
    verify_s: float = Field(20.0, ge=3, le=3600, strict=False)
    on_target: float = Field(0.5, ge=0, strict=False)
    least_r2: float = Field(0.2, le=1, strict=False)


class CalibrateConfig(Section):
    """`configs/calibrate.toml`."""

    calibration: CalibrationSection = CalibrationSection()
    spikes: SpikesSection = SpikesSection()
    markers: MarkersSection = MarkersSection()
    behavior: BehaviorSection = BehaviorSection()
    cues: CuesSection = CuesSection()
    collect: CollectSection = CollectSection()
    learn: LearnSection = LearnSection()
    drive: DriveSection = DriveSection()
    decide: DecideSection = DecideSection()
    deploy: DeploySection = DeploySection()
    sign: SignSection = SignSection()
    recalibrate: RecalibrateSection = RecalibrateSection()

    @property
    def least_s(self) -> float:
        """Seconds of data before there may be enough: of few driven trials none can tell."""
        return self.drive.least_s if self.drive.enabled else 0.0

    @property
    def least_gain(self) -> float:
        """R2 that more data must be worth: to a subject that drives, they cost nothing."""
        return self.drive.least_gain if self.drive.enabled else self.learn.least_gain


def load_config(path: Path) -> CalibrateConfig:
    """Read the wizard's config.

    Raises:
        WizardError: unreadable, not TOML, or a key or value that cannot be.
    """
    return read_config(path, CalibrateConfig, WizardError, "configs/calibrate.toml")
