"""Small charts as SVG text: curves, arrows, bars, intervals; no library needed to look at them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 860, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 26, 34
N_TICKS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart.

    Attributes:
        x: (n,).
        y: (n,), NaN where there is a gap.
        colour: of the line.
        name: for the legend, "" for none.
        dots: mark each point.
        width: of the line.
    """

    x: np.ndarray
    y: np.ndarray
    colour: str
    name: str = ""
    dots: bool = False
    width: float = 1.5


def chart(
    curves: Sequence[Curve], x_label: str, y_label: str, y_range: tuple[float, float] | None = None
) -> str:
    """Curves over one axis."""
    x_low, x_high = _range([curve.x for curve in curves])
    y_low, y_high = y_range or _range([curve.y for curve in curves])

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [_open(WIDTH, HEIGHT, f"{y_label} over {x_label}")]
    for y in _ticks(y_low, y_high):
        parts.append(_line(LEFT, down(y), WIDTH - RIGHT, down(y), "grid"))
        parts.append(_text(LEFT - 6, down(y) + 4, f"{y:g}", "end"))
    for x in _ticks(x_low, x_high):
        parts.append(_text(across(x), HEIGHT - BOTTOM + 16, f"{x:g}", "middle"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 4, x_label, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    for curve in curves:
        parts += _drawn(curve, across, down)
    parts += _legend(curves)
    return "".join([*parts, "</svg>"])


def rose(vectors: Sequence[tuple[float, float, str, str]], most: float) -> str:
    """Arrows from one point.

    Args:
        vectors: x, y, colour and text of each.
        most: the length at the rim.
    """
    size, middle = 300, 150.0
    radius = middle - 16
    parts = [_open(size, size, "preferred directions")]
    for share in (0.5, 1.0):
        parts.append(f'<circle cx="150" cy="150" r="{radius * share:.0f}" class="rim"/>')
    for x, y, colour, text in vectors:
        length = min(1.0, math.hypot(x, y) / most)
        angle = math.atan2(y, x)
        to_x = middle + radius * length * math.cos(angle)
        to_y = middle - radius * length * math.sin(angle)
        parts.append(
            f'<g><title>{html.escape(text)}</title><line x1="150" y1="150" x2="{to_x:.1f}" '
            f'y2="{to_y:.1f}" stroke="{colour}"/><circle cx="{to_x:.1f}" cy="{to_y:.1f}" r="3" '
            f'fill="{colour}"/></g>'
        )
    return "".join([*parts, "</svg>"])


def bars(values: Sequence[tuple[float, float, str, str]], x_label: str, y_label: str) -> str:
    """A pair of bars for each item, behind each other.

    Args:
        values: grey bar, coloured bar, colour and text of each.
        x_label: what the items are.
        y_label: of the height.
    """
    width, height = 620, 190
    top = max([1e-9, *(max(a, b) for a, b, _, _ in values)])
    step = (width - LEFT - RIGHT) / max(len(values), 1)
    parts = [_open(width, height, f"{y_label} of each of {x_label}")]
    floor = height - BOTTOM

    def tall(value: float) -> float:
        return (floor - TOP) * value / top

    for tick in _ticks(0.0, top):
        at = floor - tall(tick)
        parts.append(_line(LEFT, at, width - RIGHT, at, "grid"))
        parts.append(_text(LEFT - 6, at + 4, f"{tick:g}", "end"))
    for i, (grey, coloured, colour, text) in enumerate(values):
        at = LEFT + i * step
        parts.append(
            f"<g><title>{html.escape(text)}</title>"
            + _rect(at, floor - tall(grey), 0.85 * step, tall(grey), "var(--soft)")
            + _rect(at + 0.2 * step, floor - tall(coloured), 0.45 * step, tall(coloured), colour)
            + "</g>"
        )
    parts.append(_text((LEFT + width) / 2, height - 6, x_label, "middle"))
    parts.append(
        f'<text transform="translate(14 {floor / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    return "".join([*parts, "</svg>"])


def intervals(rows: Sequence[tuple[str, float, float, float, str]], x_label: str) -> str:
    """A point with its interval for each row: name, value, low, high, colour."""
    height = 30 * len(rows) + 44
    left = 210
    low = min(0.0, *(row[2] for row in rows))
    low, high = max(low, -1.5), 1.0

    def across(x: float) -> float:
        return left + (max(x, low) - low) / (high - low) * (WIDTH - left - 70)

    parts = [_open(WIDTH, height, x_label)]
    for tick in _ticks(low, high):
        parts.append(_line(across(tick), 6, across(tick), height - 36, "grid"))
        parts.append(_text(across(tick), height - 22, f"{tick:g}", "middle"))
    for i, (name, value, from_, to, colour) in enumerate(rows):
        y = 22 + 30 * i
        parts.append(_text(left - 12, y + 4, name, "end"))
        parts.append(
            f'<line x1="{across(from_):.1f}" y1="{y}" x2="{across(to):.1f}" y2="{y}" '
            f'stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{across(value):.1f}" cy="{y}" r="6" fill="{colour}"/>'
        )
        parts.append(_text(WIDTH - 56, y + 4, f"{value:.2f}", "start"))
    parts.append(_text((left + WIDTH) / 2, height - 4, x_label, "middle"))
    return "".join([*parts, "</svg>"])


def _drawn(
    curve: Curve, across: Callable[[float], float], down: Callable[[float], float]
) -> list[str]:
    pieces, piece = [], []
    for x, y in zip(curve.x.tolist(), curve.y.tolist(), strict=True):
        if math.isfinite(y):
            piece.append(f"{across(x):.1f},{down(y):.1f}")
        elif piece:
            pieces.append(piece)
            piece = []
    pieces += [piece] if piece else []
    drawn = [
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{curve.colour}" '
        f'stroke-width="{curve.width}"/>'
        for points in pieces
    ]
    for points in pieces if curve.dots else []:
        for point in points:
            x, y = point.split(",")
            drawn.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{curve.colour}"/>')
    return drawn


def _legend(curves: Sequence[Curve]) -> list[str]:
    parts, at = [], LEFT + 8
    for curve in curves:
        if curve.name:
            parts.append(_rect(at, 10, 14, 4, curve.colour))
            parts.append(_text(at + 19, 16, curve.name, "start"))
            at += 34 + 7 * len(curve.name)
    return parts


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    known = np.concatenate([np.ravel(one) for one in values]) if values else np.zeros(1)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / N_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 9) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _open(width: int, height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{html.escape(title)}</title>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(height, 0):.1f}" '
        f'fill="{colour}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
