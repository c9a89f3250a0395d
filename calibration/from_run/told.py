"""The lines that `calibrate --from-run` prints."""

from __future__ import annotations

from calibration.from_run.days import SHARES
from calibration.from_run.make import Made
from calibration.wizard.results import VerifyResult

ROWS = {
    "today": "the new decoder",
    "yesterday": "the decoder that drove",
    "shuffled": "control: units shuffled",
}


def lines_of(made: Made, *, in_service: bool = False) -> str:
    """Return the verification as a table, what was learnt from, and what to do next."""
    lines = [*_table(made.verified), ""]
    if made.learnt is not None and made.learnt.r2:
        tried = ", ".join(
            f"{share:g}: {r2:.3f}" for share, r2 in zip(SHARES, made.learnt.r2, strict=True)
        )
        lines.append(
            f"{made.n_recordings} recordings, each counting by {made.learnt.share:g} beside the "
            f"one after it (R2 of a quick filter by that share: {tried})"
        )
    lines.append(f"How fast the subject means to go was learnt from {made.pace_from}.")
    lines.append(f"{made.bundle} in {made.total_s:.1f} s")
    next_step = f"Put it in service: `spikeloop swap {made.bundle} --shadow 5`"
    if in_service:
        next_step = "It is in service; `spikeloop rollback` takes the one before"
    verdict = f"It is better than the decoder that drove. {next_step}"
    if made.why_not:
        verdict = f"Leave the old one in service: {made.why_not}."
    lines.append(verdict)
    if made.wants_assistance:
        lines.append(
            "The decoder that drove left the cursor stuck. Let the task help for the next minutes: "
            '`spikeloop mark "block closed-loop assist=0.50"`, and make a decoder of these.'
        )
    return "\n".join([*lines, ""])


def _table(found: VerifyResult) -> list[str]:
    held_out = f"{found.seconds:.0f} s, {found.n_blocks} {found.blocks}"
    lines = [f"R2 of {found.output} as it was meant, over {held_out}, never learnt from", ""]
    lines.append(f"{'':32}  mean  95 %           each dimension   new above it (95 %)")
    for name, text in ROWS.items():
        one = found.decoders[name]
        low, high = one.mean_ci
        each = " / ".join(f"{value:5.2f}" for value in one.r2)
        gain = found.gains.get(name)
        above = f"{gain.mean:+.2f} ({gain.ci[0]:+.2f} to {gain.ci[1]:+.2f})" if gain else ""
        lines.append(
            f"{text:32} {one.mean:5.2f}  {low:5.2f} to {high:5.2f}  {each:17}{above}".rstrip()
        )
    return lines
