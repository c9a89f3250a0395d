"""Typed results of the wizard's steps, with the fields of `progress.json` and `--json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from streams.exit_codes import ExitCode

Level = Literal["good", "warn", "stop"]
Verdict = Literal["accept", "reject"]
AnyResult = TypeVar("AnyResult", bound="Result")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the preflight has checked.

    Attributes:
        level: fine, worth a look, or to be mended first.
        what: the thing.
        found: its state.
        do: advice, "" where none is needed.
        code: exit code where it stops an unattended run.
    """

    level: Level
    what: str
    found: str
    do: str = ""
    code: int = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """R2 (mean over dimensions) after some data: a quick filter's, or that of today's decoders."""

    seconds: float
    n_trials: int
    r2: float


@dataclass(frozen=True, slots=True)
class DecoderScore:
    """One decoder's R2 on held-out trials, with 95 % intervals.

    Attributes:
        r2: per dimension.
        ci: per dimension, low and high end.
        mean: over dimensions.
        mean_ci: low and high end.
    """

    r2: list[float]
    ci: list[list[float]]
    mean: float
    mean_ci: list[float]


@dataclass(frozen=True, slots=True)
class Gain:
    """Today's R2 above another decoder's, mean over dimensions, with its 95 % interval."""

    mean: float
    ci: list[float]


@dataclass(frozen=True, slots=True)
class SpeedShare:
    """The decodes' speed as a share of the movement's, with its 95 % interval."""

    share: float
    ci: list[float]


@dataclass(frozen=True, slots=True)
class Rule:
    """A threshold in `[decide]` and the value compared with it."""

    rule: str
    found: float
    least: float
    holds: bool
    text: str


class Result(BaseModel):
    """Base class; only the fields that a step has set are saved."""

    model_config = ConfigDict(frozen=True)

    def as_json(self) -> dict[str, Any]:
        """The fields that were set, JSON-able."""
        return self.model_dump(mode="json", exclude_unset=True)


class PreflightResult(Result):
    """Findings, and whether the operator went on although something was to be mended."""

    findings: list[Finding]
    overridden: bool


class CollectResult(Result):
    """The collected session.

    Attributes:
        session: NWB file.
        session_id: `subject/YYYY-MM-DD/name`.
        recordings: XDF file names.
        units: how many.
        spikes: how many.
        seconds: the session's duration.
        left_out: what was lost or not used, a line each.
        collect_s: time spent.
        trials: how many.
        sectors: trials per eighth of the circle, from east counter-clockwise.
        balance: 1 where all directions are met alike, 0 where all lie on one line.
        curve: the learning curve.
        more_helps: whether more data still helped; None where too early to say.
        test: the held-out part, as `adapt` takes it; "" where each trial was scored by the decoder
            that was made before it.
        decoders: made while collecting.
        expected_gain: R2 that 30 s more were expected to bring at the end; None where not known.
        driving_s: of them the subject drove.
        swaps: steps that went into the daemon meanwhile.
        drive_trouble: why nobody drove any more; "" where nothing was amiss.
    """

    session: str
    session_id: str
    recordings: list[str]
    units: int
    spikes: int
    seconds: float
    left_out: list[str]
    collect_s: float
    trials: int
    sectors: list[int]
    balance: float
    curve: list[LearningPoint]
    more_helps: bool | None
    test: str
    decoders: int = 0
    expected_gain: float | None = None
    driving_s: float = 0.0
    swaps: int = 0
    drive_trouble: str = ""


class AdaptResult(Result):
    """Today's decoder; `adapt` tells more, which is kept as it is.

    Attributes:
        bundle: its directory.
        checksum: its id.
        decoder_id: its name on the wire.
        parent_id: the decoder it was made from.
        adapt_s: time that learning took.
        seconds: data learnt from.
        n_steps: gradient steps.
        start: what the embeddings began with.
    """

    model_config = ConfigDict(extra="allow")

    bundle: str
    checksum: str
    decoder_id: str
    parent_id: str | None
    adapt_s: float
    seconds: float
    n_steps: int
    start: str


class VerifyResult(Result):
    """Four decoders on trials that today's had not seen: today, yesterday, wiener, shuffled.

    Attributes:
        output: that is scored.
        unit: physical unit.
        test: the held-out part; "" where each trial was scored by the decoder made before it.
        seconds: scored.
        blocks: what the intervals are drawn over.
        n_blocks: how many.
        decoders: scores by name.
        gains: today's above each other decoder.
        speed: today's; None for no velocity.
    """

    output: str
    unit: str
    test: str
    seconds: float
    blocks: str
    n_blocks: int
    decoders: dict[str, DecoderScore]
    gains: dict[str, Gain]
    speed: SpeedShare | None = None


class ReportResult(Result):
    """The report's path."""

    report: str


class DecideResult(Result):
    """The decision, what the thresholds proposed, and the reason."""

    proposed: Verdict
    decided: Verdict
    by: Literal["thresholds", "operator"]
    reason: str
    rules: list[Rule]

    @property
    def is_accepted(self) -> bool:
        """True where the decoder goes into service."""
        return self.decided == "accept"


class DeployResult(Result):
    """The decoder's way into service.

    Attributes:
        deployed: whether a daemon runs it.
        why: the reason where none does.
        id: in the registry.
        current: whether it is the registry's current one.
        before: the previous decoder's checksum.
        stages: as the daemon told them.
        watched_s: how long it was watched.
        decodes: that came meanwhile.
        ok: share that may be trusted.
        late: late ones.
        lost_messages: by gaps in `seq`.
        skipped_beats: by gaps in `beat`.
    """

    deployed: bool
    why: str = ""
    id: str = ""
    current: bool = False
    before: str = ""
    stages: list[dict[str, Any]] = []
    watched_s: float = 0.0
    decodes: int = 0
    ok: float = 0.0
    late: int = 0
    lost_messages: int = 0
    skipped_beats: int = 0


class RecalibrateResult(Result):
    """A decoder that learnt from driving too; only `done` where the step was left out."""

    done: bool
    why: str = ""
    recordings: list[str] = []
    session: str = ""
    adapt: AdaptResult | None = None
    verify: VerifyResult | None = None
    decide: DecideResult | None = None
    deploy: DeployResult | None = None


class StepResults(Result):
    """Results so far; the fields are the steps, in their order."""

    preflight: PreflightResult | None = None
    collect: CollectResult | None = None
    adapt: AdaptResult | None = None
    verify: VerifyResult | None = None
    report: ReportResult | None = None
    decide: DecideResult | None = None
    deploy: DeployResult | None = None
    recalibrate: RecalibrateResult | None = None


STEPS = tuple(StepResults.model_fields)


def needed(result: AnyResult | None) -> AnyResult:
    """Return an earlier step's result.

    Raises:
        LookupError: the step was not done, which the steps' order excludes.
    """
    if result is None:
        raise LookupError("a step is missing that comes earlier")
    return result
