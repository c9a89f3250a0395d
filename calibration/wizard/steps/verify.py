"""Steps 4 and 6: held-out trials against other decoders, and the decision by stated thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibration.choices import TargetSpec
from calibration.errors import WizardError
from calibration.prequential.traces import load, second_half
from calibration.ridge import HISTORY_S, binned_counts, wiener_weights, with_history
from calibration.scoring import (
    blocks_of,
    drawn_blocks,
    interval_95,
    parse_split,
    sums_of_blocks,
)
from calibration.wizard.behavior import continuous_targets
from calibration.wizard.config import DecideSection
from calibration.wizard.results import (
    DecideResult,
    Rule,
    SpeedShare,
    Verdict,
    VerifyResult,
    needed,
)
from calibration.wizard.run import CalibrationRun
from calibration.wizard.scoring import N_RESAMPLES, score_decoders, scores_of
from calibration.wizard.ui import Choice, Page
from export.bundle import DecoderBundle, open_bundle
from streams.exit_codes import ExitCode
from streams.messages import Float64s, Int64s
from streams.sessions.reading import read_session
from streams.sessions.session import Interval, Session, in_intervals

STEP = "verify"
TITLE = "Is it any good?"
TRACES = "verify.npz"
# More is not advised, nor its inverse, however few the held-out trials were.
MOST_GAIN = 1.3
BINS_AT_ONCE = 1000
NAMES = {
    "today": "today's decoder",
    "yesterday": "yesterday's decoder",
    "wiener": "Wiener filter, same data",
    "shuffled": "control: units shuffled",
}


def step(run: CalibrationRun) -> VerifyResult:
    """Score four decoders on trials that today's had not seen.

    Raises:
        WizardError: the held-out part cannot be scored.
    """
    if not needed(run.results.collect).test:
        result = verified_as_collected(run)
        # The screen of collecting has shown the same all along.
        run.show(Page(STEP, TITLE, verification_table(result), verification_line(result)))
        return result
    run.show(Page(STEP, TITLE, Text("decoding the held-out trials ...")))
    collected, made = needed(run.results.collect), needed(run.results.adapt)
    session, traces = Path(collected.session), run.folder / TRACES
    seed = run.config.calibration.seed
    result = verify(run.base, Path(made.bundle), session, collected.test, traces, seed=seed)
    run.ui.ask(Page(STEP, TITLE, verification_table(result), verification_line(result)))
    return result


def verified_as_collected(run: CalibrationRun) -> VerifyResult:
    """Score the trials that were decoded while they were collected, each before it was learnt."""
    target = continuous_targets(open_bundle(run.base))[0]
    traces, seed = second_half(load(run.folder / TRACES)), run.config.calibration.seed
    decoders, gains = scores_of(traces, seed)
    today = traces.decodes["today"]
    share = speed_share(today, traces.actual, traces.block, seed) if target.is_velocity else None
    return VerifyResult(
        output=target.output,
        unit=target.unit,
        test="",
        seconds=len(traces) * float(np.median(np.diff(traces.t_s))),
        blocks="trials",
        n_blocks=traces.n_trials,
        speed=share,
        decoders=decoders,
        gains=gains,
    )


def scored_while_collecting(run: CalibrationRun) -> dict[str, Any]:
    """The manifest's `verification` of a decoder whose predecessors were scored."""
    result = verified_as_collected(run)
    today = result.decoders["today"]
    return {
        "r2": {result.output: today.r2},
        "ci": {result.output: today.ci},
        "n_trials": result.n_blocks,
        "seconds": round(result.seconds, 6),
    }


def verify(
    yesterday: Path,
    today: Path,
    session_path: Path,
    test: str,
    traces: Path,
    *,
    seed: int,
    wiener: bool = True,
) -> VerifyResult:
    """Score four decoders by R2 with 95 % intervals over trials, and paired differences.

    Args:
        yesterday: the previous bundle.
        today: the adapted bundle.
        session_path: the recording.
        test: its held-out part.
        traces: where the decodes are kept for figures (npz).
        seed: for the draws and the control.
        wiener: fit and score a Wiener filter too; it takes longer than all the rest.

    Raises:
        WizardError: the held-out part cannot be scored.
    """
    bundle, session = open_bundle(today), read_session(session_path)
    target = continuous_targets(bundle)[0]
    scored = parse_split(test, session.duration_s)
    until_s = scored[-1][1]
    # R2 that is left with the units in another order owes nothing to their tuning.
    mixed = np.random.default_rng(seed).permutation(len(session.unit_keys))
    shuffled = replace(session, unit_keys=tuple(session.unit_keys[i] for i in mixed))
    t_s, decoded = _decoded(bundle, session, target, until_s)
    decodes = {
        "today": decoded,
        "yesterday": _decoded(open_bundle(yesterday), session, target, until_s)[1],
        "shuffled": _decoded(bundle, shuffled, target, until_s)[1],
    }
    if wiener:
        decodes["wiener"] = _wiener(session, target, t_s, scored)
    actual = session.signal(target.behavior).at(t_s)
    chosen = in_intervals(t_s, scored) & np.isfinite(actual).all(axis=1)
    t_s, actual = t_s[chosen], actual[chosen]
    if len(actual) < 2 or not (np.ptp(actual, axis=0) > 0).all():
        raise WizardError(
            f"{target.behavior} is not known, or does not vary, in the held-out {test} s",
            ExitCode.STREAM,
        )
    decodes = {name: values[chosen] for name, values in decodes.items()}
    np.savez_compressed(traces, t_s=t_s, actual=actual, **decodes)  # type: ignore[arg-type]
    block, kind = blocks_of(session, t_s)
    decoders, gains = score_decoders(decodes, actual, block, seed)
    return VerifyResult(
        output=target.output,
        unit=target.unit,
        test=test,
        seconds=len(t_s) * float(np.median(np.diff(t_s))),
        blocks=kind,
        n_blocks=len(np.unique(block)),
        speed=speed_share(decodes["today"], actual, block, seed) if target.is_velocity else None,
        decoders=decoders,
        gains=gains,
    )


def _decoded(
    bundle: DecoderBundle, session: Session, target: TargetSpec, until_s: float
) -> tuple[Float64s, Float64s]:
    """Times and (n, dims) decodes, causal, through the exported graph."""
    from calibration.evaluate import decode_session  # brings torch
    from export.backends.onnxruntime_cpu import open_cpu

    known = np.array([key in bundle.row_of_key for key in session.unit_keys])
    # A decoder that knows none of the units says zero; today's must beat that too.
    if not known[session.spikes.unit].any():
        n = int(until_s / bundle.manifest.hop_s)
        ends_s: Float64s = (np.arange(n, dtype=np.float64) + 1.0) * bundle.manifest.hop_s
        return ends_s, np.zeros((n, target.dims))
    decoded = decode_session(bundle, open_cpu(bundle), session, until_s, 0.0)
    return decoded.t_s, decoded.values[target.output]


def _wiener(
    session: Session, target: TargetSpec, t_s: Float64s, scored: list[Interval]
) -> Float64s:
    """Decode with a ridge filter on one second, fitted outside the held-out part."""
    hop_s = float(t_s[0])
    counts = binned_counts(session, hop_s, len(t_s))
    # Silent units only cost time.
    history = with_history(counts[:, counts.any(axis=0)], round(HISTORY_S / hop_s))
    actual = session.signal(target.behavior).at(t_s)
    learnt = np.isfinite(actual).all(axis=1) & ~in_intervals(t_s, scored)
    weights = wiener_weights(history[learnt], actual[learnt])
    # In parts: the whole history in float64 is half a gigabyte after four minutes.
    parts = (slice(i, i + BINS_AT_ONCE) for i in range(0, len(history), BINS_AT_ONCE))
    return np.concatenate([history[part].astype(np.float64) @ weights for part in parts])


def speed_share(decoded: Float64s, actual: Float64s, block: Int64s, seed: int) -> SpeedShare:
    """Regress decoded on actual velocity, through rest, with its interval over blocks.

    An estimate that errs as little as it can is too slow, the more so the less it knows.

    Args:
        decoded: (n, dims) velocities.
        actual: (n, dims).
        block: (n,) which trial each belongs to.
        seed: for the draws.
    """
    columns = np.stack([decoded * actual, np.square(actual)], axis=1)
    sums = sums_of_blocks(columns, block).sum(axis=2)
    along, squares = (drawn_blocks(len(sums), seed, N_RESAMPLES) @ sums).T
    share = along / np.where(squares > 0, squares, np.nan)
    return SpeedShare(float(share[0]), interval_95(share[1:]).tolist())


def verification_table(result: VerifyResult) -> Group:
    """Show the decoders in rows."""
    table = Table(box=None, padding=(0, 2))
    table.add_column(
        "R2 on held-out trials" if result.test else "R2, each trial before it was learnt"
    )
    for column in ("mean", "95 %", "each dimension"):
        table.add_column(column, justify="right")
    for name, text in NAMES.items():
        one = result.decoders[name]
        low, high = one.mean_ci
        each = " / ".join(f"{value:.2f}" for value in one.r2)
        style = "bold" if name == "today" else ""
        table.add_row(text, f"{one.mean:.2f}", f"{low:.2f} to {high:.2f}", each, style=style)
    held_out = f"{result.seconds:.0f} s, {result.n_blocks} {result.blocks}"
    unseen = "never learnt from" if result.test else "each by the decoder that was made before it"
    note = Text(f"{result.output} ({result.unit}) over {held_out}, {unseen}", "dim")
    speed = speed_line(result.speed)
    return Group(table, Text(), note, *([Text(speed, "dim")] if speed else []))


def verification_line(result: VerifyResult) -> str:
    """Say the same in one line."""
    return "R2 " + ", ".join(f"{name} {one.mean:.2f}" for name, one in result.decoders.items())


def speed_line(speed: SpeedShare | None) -> str:
    """Say how fast today's decodes are, and the gain that makes up for it; "" for no velocity."""
    if speed is None or not speed.share > 0.0:
        return ""
    low, high = speed.ci
    text = (
        f"Today's decodes are {speed.share:.2f} times as fast as the movement "
        f"({low:.2f} to {high:.2f})"
    )
    if low <= 1.0 <= high:
        return text
    gain = min(max(1.0 / speed.share, 1.0 / MOST_GAIN), MOST_GAIN)
    return f"{text}; `spikeloop shape gain={gain:.2f}` makes up for it"


def decision_step(run: CalibrationRun) -> DecideResult:
    """Propose, ask, and note who decided what and why."""
    thresholds = run.config.decide
    if run.drove is not None:
        # What was meant is a guess, so less of it can be decoded than of movement.
        thresholds = thresholds.model_copy(update={"least_r2": run.config.drive.least_r2})
    return decide(run, needed(run.results.verify), thresholds)


def decide(run: CalibrationRun, verified: VerifyResult, config: DecideSection) -> DecideResult:
    """Do the same for any decoder that was verified."""
    rules = judge(verified, config)
    proposed: Verdict = "accept" if all(rule.holds for rule in rules) else "reject"
    choices = [
        Choice("a", "accept: put it in service"),
        Choice("r", "reject: keep yesterday's"),
    ]
    # The first choice is taken where nobody is asked.
    if proposed == "reject":
        choices.reverse()
    line = f"{proposed}: " + "; ".join(rule.text for rule in rules)
    page = Page("decide", "Accept it?", _rules_table(rules, proposed), line)
    decided: Verdict = "accept" if run.ui.ask(page, choices) == "a" else "reject"
    reason = f"the thresholds {'hold' if decided == 'accept' else 'do not hold'}"
    if decided != proposed:
        reason = run.ui.write(page, f"Why {decided}, against the thresholds?")
    by = "thresholds" if run.auto else "operator"
    return DecideResult(proposed=proposed, decided=decided, by=by, reason=reason, rules=rules)


def judge(verified: VerifyResult, config: DecideSection) -> list[Rule]:
    """Compare each threshold with what was found."""
    gains = verified.gains
    compared = (
        ("R2 on held-out trials", verified.decoders["today"].mean, config.least_r2),
        ("above the shuffled control", gains["shuffled"].mean, config.over_shuffled),
        ("above yesterday's decoder", gains["yesterday"].mean, config.over_yesterday),
        ("above the Wiener filter", gains["wiener"].mean, config.over_wiener),
    )
    return [
        Rule(rule, found, least, found >= least, f"{rule}: {found:+.2f}, at least {least:+.2f}")
        for rule, found, least in compared
    ]


def _rules_table(rules: Sequence[Rule], proposed: Verdict) -> Group:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "rule", "found", "at least"):
        table.add_column(column, justify="left" if column in ("", "rule") else "right")
    for rule in rules:
        mark = "[green]holds[/]" if rule.holds else "[bold red]fails[/]"
        table.add_row(mark, rule.rule, f"{rule.found:+.2f}", f"{rule.least:+.2f}")
    style = "green" if proposed == "accept" else "bold red"
    return Group(table, Text(), Text(f"The thresholds propose to {proposed} it.", style=style))
