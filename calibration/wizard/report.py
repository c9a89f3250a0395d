"""Step 5: one HTML file: what was collected, how good the decoder is, what was decided and why."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from calibration.wizard import svg
from calibration.wizard.face import NEXT, Page
from calibration.wizard.run import Run
from calibration.wizard.units import UnitRow, units_of
from calibration.wizard.verify_page import NAMES, speed_of
from export.bundle import open_bundle
from streams.files import write_whole
from streams.sessions.reading import read_session

STEP = "report"
TITLE = "The report"
FILE = "calibration.html"
SHOWN_S = 12.0
COLOURS = {
    "today": "var(--good)",
    "yesterday": "var(--old)",
    "wiener": "var(--other)",
    "shuffled": "var(--soft)",
}
_WORDS = {True: "holds", False: "fails"}
_UNIT_COLOURS = {"ok": "var(--good)", "new": "var(--other)", "changed": "var(--warn)"}


def run(held: Run) -> dict[str, Any]:
    """Write the report, and say where it is."""
    path = write(held)
    told = f"{path} opens in any browser; it is kept with the decoder."
    held.face.ask(Page(STEP, TITLE, Text(told), str(path)), (NEXT,))
    return {"report": str(path)}


def write(held: Run) -> Path:
    """Write what is known by now, to the folder and to the decoder; the first's path."""
    made = held.result("adapt")
    page = rendered(held)
    path = held.folder / FILE
    write_whole(path, page)
    for bundle in _places(held, Path(made["bundle"]), made["checksum"]):
        (bundle / "report").mkdir(exist_ok=True)
        write_whole(bundle / "report" / FILE, page)
    return path


def rendered(held: Run) -> str:
    """The page."""
    steps = held.progress.steps
    parts = [_head(held, steps), _verdict(steps)]
    if "verify" in steps:
        parts.append(_verified(held, steps["verify"]))
    if steps.get("recalibrate", {}).get("done"):
        parts.append(_driven(steps["recalibrate"]))
    parts.append(_collected(steps["collect"]))
    parts.append(_units(held))
    parts.append(_preflight(steps.get("preflight", {})))
    parts.append(_facts(held, steps))
    body = "\n".join(part for part in parts if part)
    return _PAGE.replace("TITLE", html.escape(held.session_id)).replace("BODY", body)


def _places(held: Run, bundle: Path, id_: str) -> list[Path]:
    """Where the decoder lies: in the calibration's folder, and in the registry once it is there."""
    registered = held.registry / "store" / id_
    return [place for place in (bundle, registered) if place.is_dir()]


def _head(held: Run, steps: Mapping[str, Any]) -> str:
    collected = steps["collect"]
    told = (
        f"{collected['seconds']:.0f} s, {collected['trials']} trials, {collected['units']} units, "
        f"{collected['spikes']} spikes; begun {held.progress.started_utc} UTC"
    )
    subject, day, name = held.session_id.split("/")
    title = f"Calibration of {subject}, {day}" + ("" if name == day else f" ({name})")
    return f"<h1>{html.escape(title)}</h1><p class='sub'>{html.escape(told)}</p>"


def _verdict(steps: Mapping[str, Any]) -> str:
    decided = steps.get("decide")
    if decided is None:
        return "<div class='card wait'><b>Not decided yet.</b></div>"
    accepted = decided["decided"] == "accept"
    against = decided["decided"] != decided["proposed"]
    deployed = steps.get("deploy", {})
    told = f"{'Accepted' if accepted else 'Rejected'} by the {decided['by']}"
    told += f", against the thresholds: {decided['reason']}" if against else ""
    state = (
        f" In service: {deployed['ok']:.1%} of {deployed['decodes']} decodes were ok while it was "
        "watched."
        if deployed.get("deployed")
        else ""
    )
    rows = "".join(
        _row(
            f"<td class='{_WORDS[rule['holds']]}'>{_WORDS[rule['holds']]}</td>",
            f"<td>{html.escape(rule['rule'])}</td><td class='n'>{rule['found']:+.2f}</td>",
            f"<td class='n'>at least {rule['least']:+.2f}</td>",
        )
        for rule in decided["rules"]
    )
    kind = "good" if accepted else "bad"
    return (
        f"<div class='card {kind}'><b>{html.escape(told)}.</b>{html.escape(state)}"
        f"<table>{rows}</table></div>"
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _verified(held: Run, verified: Mapping[str, Any]) -> str:
    rows = []
    for name, text in NAMES.items():
        one = verified["decoders"][name]
        low, high = one["mean_ci"]
        rows.append((text, one["mean"], low, high, COLOURS[name]))
    held_out = (
        f"{verified['output']} on {verified['seconds']:.0f} s that were never learnt from "
        f"({verified['n_blocks']} {verified['blocks']}; lines are 95 % intervals over them)"
    )
    figures = svg.intervals(rows, "R2, mean over dimensions")
    gains = "; ".join(
        f"{NAMES[name]}: {one['mean']:+.2f} ({one['ci'][0]:+.2f} to {one['ci'][1]:+.2f})"
        for name, one in verified["gains"].items()
    )
    speed = speed_of(verified)
    told = f"Today's above, on the same trials: {gains}." + (f" {speed}." if speed else "")
    return (
        f"<h2>How good it is</h2><p>{html.escape(held_out)}</p>{figures}"
        f"<p class='sub'>{html.escape(told)}</p>"
        f"{_traces(held, verified)}"
    )


def _driven(driven: Mapping[str, Any]) -> str:
    """What driving added; "yesterday" is here the decoder of the open loop."""
    verified, decided = driven["verify"], driven["decide"]
    names = NAMES | {"today": "learnt from driving too", "yesterday": "of the open loop alone"}
    decoders = verified["decoders"]
    rows = [
        (text, decoders[name]["mean"], *decoders[name]["mean_ci"], COLOURS[name])
        for name, text in names.items()
    ]
    told = (
        f"Of what was meant in {verified['seconds']:.0f} s that were never learnt from. "
        f"{decided['decided'].capitalize()}ed: {decided['reason']}."
    )
    figure = svg.intervals(rows, "R2, mean over dimensions")
    return f"<h2>While the subject drove</h2><p>{html.escape(told)}</p>{figure}"


def _traces(held: Run, verified: Mapping[str, Any]) -> str:
    with np.load(held.folder / "verify.npz") as kept:
        t_s, actual, today = kept["t_s"], kept["actual"], kept["today"]
        yesterday = kept["yesterday"]
    shown = t_s <= t_s[0] + SHOWN_S
    parts = ["<h3>Decoded against actual</h3>"]
    for i in range(actual.shape[1]):
        curves = [
            svg.Curve(t_s[shown], actual[shown, i], "var(--ink)", "actual", width=2.2),
            svg.Curve(t_s[shown], yesterday[shown, i], "var(--old)", "yesterday's", width=1.0),
            svg.Curve(t_s[shown], today[shown, i], "var(--good)", "today's", width=1.6),
        ]
        label = f"{verified['output']} {'xyz'[i] if i < 3 else i} ({verified['unit']})"
        parts.append(svg.chart(curves, "time in the session (s)", label))
    return "".join(parts)


def _collected(collected: Mapping[str, Any]) -> str:
    points = collected["curve"]
    sectors = ", ".join(
        f"{name} {n}"
        for name, n in zip(
            ("E", "NE", "N", "NW", "W", "SW", "S", "SE"), collected["sectors"], strict=True
        )
    )
    told = {True: "More data still helped.", False: "More data no longer helped."}
    parts = ["<h2>What was collected</h2>"]
    if points:
        x, y = (np.array([one[name] for one in points]) for name in ("seconds", "r2"))
        low = min(0.0, float(y.min()))
        curve = svg.Curve(x, y, "var(--good)", dots=True)
        parts.append("<h3>Learning curve</h3>")
        parts.append(svg.chart([curve], "seconds collected", "R2 by a quick filter", (low, 1.0)))
    helped = told.get(collected["more_helps"], "")
    parts.append(f"<p>{helped} Trials by direction: {sectors}.</p>")
    return "".join(parts)


def _units(held: Run) -> str:
    session = read_session(Path(held.result("collect")["session"]))
    rows = units_of(session, open_bundle(held.base))
    vectors = [
        (row.x_hz, row.y_hz, _UNIT_COLOURS.get(row.health, "var(--soft)"), _told(row))
        for row in rows
        if row.health != "silent"
    ]
    most = max([1e-9, *(float(np.hypot(x, y)) for x, y, _, _ in vectors)])
    pairs = [
        (row.before_hz or 0.0, row.rate_hz, _UNIT_COLOURS.get(row.health, "var(--bad)"), _told(row))
        for row in rows
    ]
    names = {"ok": "as before", "changed": "changed", "new": "new", "silent": "silent"}
    counts = {name: sum(row.health == name for row in rows) for name in names}
    told = ", ".join(f"{n} {names[name]}" for name, n in counts.items())
    table = "".join(
        f"<tr><td>{html.escape(row.key)}</td><td class='{row.health}'>{names[row.health]}</td>"
        f"<td class='n'>{row.rate_hz:.1f}</td>"
        f"<td class='n'>{'' if row.before_hz is None else f'{row.before_hz:.1f}'}</td>"
        f"<td class='n'>{row.direction_deg:.0f}</td><td class='n'>{row.depth_hz:.1f}</td>"
        f"<td class='n'>{row.r2:.3f}</td></tr>"
        for row in rows
    )
    return (
        f"<h2>Units</h2><p>{told}. Arrows point where a unit fires most; their length is the "
        "modulation in spikes/s. Hover for names.</p>"
        f"<div class='row'>{svg.rose(vectors, most)}"
        f"<div class='grow'>{svg.bars(pairs, f'{len(rows)} units', 'spikes/s')}"
        "<p class='sub'>Grey: when the base decoder was made; colour: today.</p></div></div>"
        "<details><summary>Every unit</summary><table><tr><th>unit</th><th>health</th>"
        "<th>spikes/s</th><th>before</th><th>direction (deg)</th><th>modulation (spikes/s)</th>"
        f"<th>R2 of tuning</th></tr>{table}</table></details>"
    )


def _told(row: UnitRow) -> str:
    before = "" if row.before_hz is None else f", before {row.before_hz:.1f}"
    return f"{row.key}: {row.rate_hz:.1f} spikes/s{before}, {row.health}"


def _preflight(result: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td class='{one['level']}'>{one['level']}</td><td>{html.escape(one['what'])}</td>"
        f"<td>{html.escape(one['found'])} {html.escape(one['do'])}</td></tr>"
        for one in result.get("findings", [])
    )
    return f"<h2>Before it began</h2><table>{rows}</table>" if rows else ""


def _facts(held: Run, steps: Mapping[str, Any]) -> str:
    made = steps["adapt"]
    deployed = steps.get("deploy", {})
    facts = {
        "decoder": f"{made['decoder_id']} ({made['checksum']})",
        "made from": str(made["parent_id"]),
        "learnt from": f"{made['seconds']:.1f} s of data",
        "learning": f"{made['n_steps']} steps from {made['start']!r}, {made['adapt_s']:.1f} s",
        "session": steps["collect"]["session"],
        "recordings": ", ".join(steps["collect"]["recordings"]),
        "held-out part": f"{steps['collect']['test']} s",
        "deployed": "yes" if deployed.get("deployed") else deployed.get("why", "not yet"),
        "folder": str(held.folder),
    }
    rows = "".join(
        f"<tr><td>{name}</td><td>{html.escape(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<h2>For the record</h2><table class='facts'>{rows}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Calibration TITLE</title>
<style>
:root { --ink: #1d2733; --soft: #b9c2cc; --line: #e3e8ee; --paper: #ffffff; --good: #0a7d55;
  --bad: #b3261e; --warn: #b06f00; --old: #c2631b; --other: #3a66b5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #5b6672; --line: #2e3742;
  --paper: #151b22; --good: #3ecb94; --bad: #ff8a80; --warn: #ffc04d; --old: #ff9d5c;
  --other: #86a8ee; } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 900px; margin: 32px auto; padding: 0 20px }
h1 { font-size: 24px; margin: 0 } h2 { font-size: 18px; margin: 36px 0 6px }
h3 { font-size: 15px; margin: 20px 0 2px } p { margin: 6px 0 } .sub { opacity: .7 }
.card { border-left: 6px solid var(--soft); padding: 10px 16px; margin: 18px 0;
  background: color-mix(in srgb, var(--line) 40%, transparent) }
.card.good { border-color: var(--good) } .card.bad { border-color: var(--bad) }
.card.wait { border-color: var(--warn) }
table { border-collapse: collapse; margin-top: 8px } td, th { padding: 2px 14px 2px 0;
  text-align: left; vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums }
th { font-weight: 600; border-bottom: 1px solid var(--line) }
.holds, .good { color: var(--good) } .fails, .stop, .silent { color: var(--bad) }
.card.good, .card.bad { color: inherit }
.warn, .changed { color: var(--warn) } .new { color: var(--other) }
.facts td:first-child { opacity: .7; white-space: nowrap } .facts td { overflow-wrap: anywhere }
svg { max-width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) }
svg .grid { stroke: var(--line) } svg .rim { fill: none; stroke: var(--line) }
.row { display: flex; gap: 20px; flex-wrap: wrap; align-items: center }
.row > svg { flex: 0 0 240px }
.grow { flex: 1 1 420px } summary { cursor: pointer; margin: 8px 0 }
</style></head><body>
BODY
</body></html>
"""
