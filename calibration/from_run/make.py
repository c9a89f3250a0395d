"""`spikeloop calibrate --from-run`: a decoder from recordings, verified on the newest's end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.adaptation.adapt import write_adapted
from calibration.adaptation.adapted import Options
from calibration.adaptation.calibration_data import prepare
from calibration.adaptation.closed_form import adapt_closed_form
from calibration.choices import TargetSpec
from calibration.errors import CalibrationError
from calibration.from_run.days import Learnt, learn_share, together
from calibration.from_run.recordings import FromRunError, ReadRun, pace_for, read_driven
from calibration.wizard.behavior import Pace, body_of, continuous_targets, test_part
from calibration.wizard.meant import meant, velocity_path
from calibration.wizard.results import VerifyResult
from calibration.wizard.steps.verify import verify
from export.bundle import DecoderBundle, open_bundle
from streams.clock import MonotonicClock
from streams.exit_codes import ExitCode
from streams.sessions.convert.convert import Reading
from streams.sessions.nwb.writer import write_session
from streams.sessions.session import Session

ON_TARGET = 0.5
"""A distance that counts as on the target, in the position's unit."""
VERIFY_SHARE, VERIFY_LEAST_S = 0.2, 20.0
"""The newest recording's last part that nothing is learnt from."""
LEAST_R2, OVER_SHUFFLED = 0.2, 0.1
"""Thresholds for what was meant, which is a guess: less of it can be decoded than of movement."""
NEWEST, TRACES = "newest.nwb", "verify.npz"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """A decoder from driving.

    Attributes:
        bundle: its directory.
        base: the decoder that it was made from, which drove.
        adapted: facts about the learning, as `adapt` tells them.
        verified: its score on the newest recording's end, beside others'.
        learnt: by what earlier recordings count; None where there is one only.
        n_recordings: how many were learnt from.
        pace_from: where the subject's pace was learnt.
        total_s: time that it took.
    """

    bundle: Path
    base: Path
    adapted: Mapping[str, Any]
    verified: VerifyResult
    learnt: Learnt | None
    n_recordings: int
    pace_from: str
    total_s: float

    @property
    def why_not(self) -> str:
        """Say why it should not take over; "" where it should."""
        today = self.verified.decoders["today"].mean
        gains = self.verified.gains
        # A cursor that was stuck leaves little to tell apart, and yet what moves it is better.
        if today < LEAST_R2 and gains["yesterday"].ci[0] <= 0.0:
            return f"its R2 is {today:.2f}, and {LEAST_R2:g} is the least"
        if gains["shuffled"].mean < OVER_SHUFFLED:
            return "with its units shuffled it is nearly as good"
        if gains["yesterday"].mean <= 0.0:
            return f"the decoder that drove is better by {-gains['yesterday'].mean:.2f} of R2"
        return ""

    @property
    def wants_assistance(self) -> bool:
        """True where the decoder that drove did no better than none: the subject is stuck."""
        return self.verified.decoders["yesterday"].mean < 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything that is known, JSON-able."""
        return {
            "bundle": str(self.bundle),
            "base": str(self.base),
            "better": not self.why_not,
            "why_not": self.why_not,
            "wants_assistance": self.wants_assistance,
            "adapt": dict(self.adapted),
            "verify": self.verified.as_json(),
            "share_of_earlier": None if self.learnt is None else self.learnt.share,
            "share_r2": None if self.learnt is None else list(self.learnt.r2),
            "recordings": self.n_recordings,
            "pace_from": self.pace_from,
            "total_s": round(self.total_s, 3),
        }


def make_from_run(
    paths: Sequence[Path],
    base: Path,
    out: Path,
    *,
    reading: Reading,
    read_run: ReadRun,
    body: str = "",
    on_target: float = ON_TARGET,
    seed: int = 0,
    say: Say = lambda text: None,
) -> Made:
    """Make a decoder from recordings of a subject that drove.

    The label is what the subject meant (`with_intention`). The last part of the newest recording is
    held out; the part before it tells by what earlier recordings count.

    Args:
        paths: the recordings, the newest last; see `read_driven`.
        base: the decoder that drove.
        out: folder to write; must not exist. The bundle lies in `out/decoder` and has the folder's
            name; beside it lie the newest recording with what was meant, and the decodes of its
            end.
        reading: what means what in an XDF file.
        read_run: reads a run's folder.
        body: what was driven; "" for what the decoder follows.
        on_target: how close counts as on the target, in the position's unit.
        seed: the same seed gives the same bundle.
        say: hears what is done.

    Raises:
        FromRunError: a recording does not tell what was meant.
        CalibrationError: nothing can be learnt from them, or `out` exists.
        streams.errors.StreamsError: one cannot be read.
    """
    clock = MonotonicClock()
    t_begin_s = clock.now()
    if out.exists():
        raise CalibrationError(f"{out} exists; choose another name")
    bundle = open_bundle(base)
    target = _velocity_of(bundle)
    body = body or body_of(target)
    say(f"reading {len(paths)} recording{'s' if len(paths) > 1 else ''}")
    driven = [read_driven(path, bundle, body, reading, read_run) for path in paths]
    pace, pace_from = pace_for(bundle, driven, body)
    sessions = [meant(one, body, pace, on_target) for one in driven]
    out.mkdir(parents=True)
    made = out / "decoder" / out.name
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, out, ignore_errors=True)
        newest = sessions[-1]
        test = test_part(newest, max(VERIFY_LEAST_S, VERIFY_SHARE * newest.duration_s))
        label = velocity_path(body)
        share = _share(sessions, label, test, say) if len(sessions) > 1 else None
        whole, n_days = together(sessions, share.share if share else 1.0, label)
        say(f"learning from {n_days} of {len(sessions)}")
        until_s = whole.duration_s - newest.duration_s + float(test.split("-")[0])
        adapted = _adapted(bundle, whole, made, until_s, pace, seed)
        say("verifying")
        write_session(newest, out / NEWEST)
        traces = out / TRACES
        verified = verify(base, made, out / NEWEST, test, traces, seed=seed, wiener=False)
        undo.pop_all()
    return Made(
        bundle=made,
        base=base,
        adapted=adapted,
        verified=verified,
        learnt=share,
        n_recordings=n_days,
        pace_from=pace_from,
        total_s=clock.now() - t_begin_s,
    )


def _velocity_of(bundle: DecoderBundle) -> TargetSpec:
    for target in continuous_targets(bundle):
        if target.is_velocity:
            return target
    raise FromRunError(
        f"decoder {bundle.manifest.name!r} decodes no velocity: what a subject means while it "
        "drives is known as a velocity only; calibrate it with `spikeloop calibrate CONFIG.toml`",
        ExitCode.BUNDLE,
    )


def _share(sessions: Sequence[Session], label: str, test: str, say: Say) -> Learnt:
    """Choose by what earlier recordings count, on the part before the held-out one."""
    begin_s, end_s = (float(edge) for edge in test.split("-"))
    chosen = (max(0.0, begin_s - (end_s - begin_s)), begin_s)
    learnt = learn_share(sessions, label, chosen)
    say(f"an earlier recording counts by {learnt.share:g} beside the one after it")
    return learnt


def _adapted(
    bundle: DecoderBundle, session: Session, out: Path, until_s: float, pace: Pace, seed: int
) -> dict[str, Any]:
    """Adapt a decoder to a session's beginning, in closed form; the one place that knows how."""
    clock = MonotonicClock()
    t_begin_s = clock.now()
    data = prepare(bundle, session, until_s, 0.0, None)
    found = adapt_closed_form(bundle, data, Options(True, False, True, seed, None))
    adapt_s = round(clock.now() - t_begin_s, 3)
    facts = {"pace": {"top": pace.top, "slow_within": pace.slow_within}}
    return {"adapt_s": adapt_s, **write_adapted(out, bundle, data, found, seed, facts)}
