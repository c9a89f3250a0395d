"""Output of `spikeloop redecode`."""

from __future__ import annotations

from typing import Any


def summary(report: dict[str, Any]) -> str:
    """Return the report as lines for people."""
    exact = report["bit_for_bit"]
    allowed = "bit for bit" if exact else f"to {report['allowed']:g}, the parity bound"
    lines = [
        f"run {report['run']}, began {report['began'][:19]}, {report['seconds']:.1f} s",
        f"decodes said       {report['decodes']:>9}",
        f"made again         {report['compared']:>9}   compared {allowed}",
        f"differing          {report['differing']:>9}"
        + ("" if exact else f"   largest difference {report['largest_difference']:.3g}"),
    ]
    if exact:
        lines.append(f"values differing   {report['other_values']:>9}   as shaped, or safe")
    lines += [
        f"bins run           {report['bins_run']:>9}   tokens differing in "
        f"{report['other_tokens']}",
        f"time               {report['took_s']:>9.1f} s {_speed(report)}",
    ]
    if report["checkpoints"]:
        lines.insert(
            -1, f"checkpoints        {report['checkpoints']:>9}   differing "
            f"{report['other_checkpoints']}",
        )  # fmt: skip
    for why, n in report["not_compared"].items():
        lines.append(f"not made again     {n:>9}   {why}")
    for name in ("by_decoder", "by_reason"):
        lines.append(f"{name.replace('_', ' ')}:")
        lines += [f"  {n:>16}   {what}" for what, n in report[name].items()]
    lines += report["remarks"]
    for one in report["first_differing"]:
        lines.append(f"{one['topic']} {one['seq']}, beat {one['beat']}: said {one['said']}, ")
        lines.append(f"  made again {one['remade']}")
    return "\n".join(lines) + "\n"


def _speed(report: dict[str, Any]) -> str:
    times = report["times_real_time"]
    return f"  {times:g} times as fast as it happened" if times else ""
