"""One decode of a recorded run, with its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from service.redecode.comparison import same
from service.redecode.decoders import RecordedDecoders
from service.redecode.reading import RecordingError, fitting_together, open_run
from service.redecode.replay import Remade, Replay


def decode_at(path: Path, seq: int, folders: list[Path], backend: str = "") -> dict[str, Any]:
    """Make a run's decodes again up to number `seq`; what it is and what it was made of.

    Raises:
        RecordingError: the run cannot be read, or does not hold it.
        BundleError, BackendUnavailable: a decoder cannot be opened.
    """
    run = open_run(path)
    decoders = RecordedDecoders(run.facts, folders, backend)
    newest = 0
    with fitting_together(path):
        for remade in Replay(run, decoders.open):
            if remade.topic != "decode":
                continue
            newest = remade.decode.seq
            if newest == seq:
                return _told(remade) | {"remarks": decoders.remarks}
    raise RecordingError(f"{path} holds no decode {seq}; its newest is {newest}")


def _told(remade: Remade) -> dict[str, Any]:
    told: dict[str, Any] = {
        "decode": msgspec.to_builtins(remade.decode),
        "made_again": {"value_raw": remade.value_raw, "value": remade.value},
        "same": same(remade.value_raw, remade.decode.value_raw),
        "not_made_again": remade.why_not,
        "cut_by": remade.bin.rule if remade.bin else None,
        "spikes_in_bin": len(remade.bin.spikes) if remade.bin else None,
        "tokens": _tokens(remade),
    }
    return told


def _tokens(remade: Remade) -> list[dict[str, Any]]:
    """Return the tokens in order: unit, milliseconds before the window's end, count."""
    window, opened = remade.window, remade.opened
    if window is None or opened is None:
        return []
    key_of_row = {row: key for key, row in opened.bundle.row_of_key.items() if key in remade.keys}
    bin_s = opened.bundle.manifest.bin_s
    before_ms = (bin_s - window.t_rel.astype(np.float64)) * 1e3
    columns = (window.unit.tolist(), before_ms.tolist(), window.count.tolist())
    return [
        {"unit": key_of_row.get(row, ""), "row": row, "before_ms": round(ms, 3), "count": count}
        for row, ms, count in zip(*columns, strict=True)
    ]


def lines_of(told: dict[str, Any]) -> str:
    """Return what `decode_at` found as lines for people."""
    decode, again = told["decode"], told["made_again"]
    lines = [
        f"decode {decode['seq']}, beat {decode['beat']}, window's end {decode['t_window']:.6f} s, "
        f"{decode['validity']} {decode['reason']}".rstrip(),
        f"by {decode['decoder_id']} {decode['checksum'][:12]} on {decode['backend']}, lead "
        f"{decode['lead_s']:g} s, cut by {told['cut_by'] or '-'} at {decode['t_cut']:.6f} s",
    ]
    for name, unit in decode["units"].items():
        lines.append(f"{name} ({unit})" if unit else name)
        lines.append(f"  said   {decode['value'][name]}   raw {decode['value_raw'][name]}")
        if told["not_made_again"]:
            lines.append(f"  not made again: {told['not_made_again']}")
        else:
            value = (again["value"] or {}).get(name)
            lines.append(f"  again  {value}   raw {again['value_raw'][name]}")
    lines.append("the same, bit for bit" if told["same"] else "not the same")
    tokens = told["tokens"]
    lines.append(f"{len(tokens)} tokens of {told['spikes_in_bin']} spikes:")
    lines += [
        f"  {one['unit']:>12}  row {one['row']:>5}  {one['before_ms']:>9.3f} ms before the end"
        + (f"  x {one['count']:g}" if one["count"] != 1.0 else "")
        for one in tokens
    ]
    return "\n".join([*lines, *told["remarks"]]) + "\n"
