"""The page's figures, as BokehJS draws them; browsers fill in the data.

What moves at every picture is no part of them: `static/layer.js` lays it upon their frames.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from bokeh.core.validation import silence
from bokeh.core.validation.warnings import MISSING_RENDERERS
from bokeh.embed import json_item
from bokeh.models import BasicTicker, ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure
from bokeh.themes import Theme

from service.page.panels.decoded import TRACE_S
from service.page.panels.events import SHOWN_S
from service.page.panels.latency import STAGES
from service.page.panels.raster import COLUMN_S, N_COLUMNS

N_TRACES = 4
"""Dimensions of outputs that are drawn; more are in no use today."""
LEAD_S = 0.1
"""Decodes of what is to come lie so far right of now."""
MINUTE = [-60.0, -40.0, -20.0, 0.0]
INK = {"light": "#1b2430", "dark": "#e8edf4"}
MUTED = {"light": "#66717f", "dark": "#93a0b0"}
GRID = {"light": "#e3e8ee", "dark": "#2a323d"}
ACCENT = {"light": "#0b62c4", "dark": "#5ab0ff"}
SECOND = {"light": "#c25700", "dark": "#ffb35c"}

silence(MISSING_RENDERERS)  # frames of layers have none


@functools.cache
def figures(theme: str) -> str:
    """Return every figure as JSON, by name, for `light` or `dark`."""
    made = {
        "raster": _raster(),
        "plane": _plane(),
        **{f"trace{i}": _trace(i) for i in range(N_TRACES)},
        "latency": _latency(theme),
        "stages": _stages(theme),
        "rate": _rate(theme),
        "timeline": _timeline(theme),
        "polar": _polar(theme),
        "array": _array(theme),
    }
    look = _theme(theme)
    return json.dumps({name: json_item(one, theme=look) for name, one in made.items()})


def _theme(theme: str) -> Theme:
    ink, muted, grid = INK[theme], MUTED[theme], GRID[theme]
    font = "system-ui, sans-serif"
    attrs: dict[str, Any] = {
        "Plot": {
            "background_fill_alpha": 0.0, "border_fill_alpha": 0.0, "outline_line_color": None,
        },
        "Grid": {"grid_line_color": grid},
        "Axis": {
            "axis_line_color": grid, "major_tick_line_color": grid, "minor_tick_line_color": None,
            "major_label_text_color": muted, "major_label_text_font": font,
            "major_label_text_font_size": "11px", "axis_label_text_color": muted,
            "axis_label_text_font": font, "axis_label_text_font_size": "11px",
            "axis_label_text_font_style": "normal", "axis_label_standoff": 4,
        },
        "Label": {"text_color": ink, "text_font": font, "text_font_size": "11px"},
    }  # fmt: skip
    return Theme(json={"attrs": attrs})


def _plot(name: str, x: tuple[float, float], y: tuple[float, float], **more: Any) -> figure:
    """Make a plot without tools, as wide and high as its place."""
    plot = figure(
        name=f"{name}_plot", x_range=Range1d(start=x[0], end=x[1]),
        y_range=Range1d(start=y[0], end=y[1]), toolbar_location=None, tools="",
        sizing_mode="stretch_both", output_backend="canvas", min_border=4, **more,
    )  # fmt: skip
    plot.xgrid.visible = False
    plot.xaxis.ticker, plot.yaxis.ticker = (BasicTicker(desired_num_ticks=5) for _ in range(2))
    return plot


def _source(name: str, **columns: Any) -> ColumnDataSource:
    return ColumnDataSource(name=name, data=columns)


def _raster() -> figure:
    seconds = N_COLUMNS * COLUMN_S
    plot = _plot("raster", (-seconds, 0.0), (0.0, 1.0), x_axis_label="seconds ago")
    plot.grid.visible = False
    plot.yaxis.visible = False
    rows = _source("rows", y=[], key=[], mark=[])
    # Not drawn: it only answers the pointer.
    row = plot.hbar(
        "y", left=-seconds, right=0.0, height=1.0, source=rows, fill_color=None, line_color=None
    )
    tip = HoverTool(renderers=[row], tooltips="@key @mark", point_policy="follow_mouse")
    plot.add_tools(tip)
    return plot


def _plane() -> figure:
    plot = _plot("plane", (-13.0, 13.0), (-13.0, 13.0))
    plot.xgrid.visible = True
    return plot


def _trace(i: int) -> figure:
    return _plot(f"trace{i}", (-TRACE_S, LEAD_S), (-1.0, 1.0))


def _latency(theme: str) -> figure:
    plot = _plot("latency", (-60.0, 0.0), (0.0, 25.0), y_axis_label="ms")
    plot.xaxis.ticker = MINUTE
    band = _source("band", x=[], p50=[], p99=[])
    plot.varea("x", "p50", "p99", source=band, fill_color=ACCENT[theme], fill_alpha=0.25)
    plot.line("x", "p50", source=band, line_color=ACCENT[theme], line_width=2)
    plot.line("x", "p99", source=band, line_color=ACCENT[theme], line_width=1)
    _hop(plot, theme)
    return plot


def _hop(plot: figure, theme: str, *, is_upright: bool = False) -> None:
    """Draw a dashed line where a hop is over."""
    source = _source("hop", at=[20.0])
    look: dict[str, Any] = {"line_color": SECOND[theme], "line_dash": "dashed", "line_width": 1.5}
    if is_upright:
        plot.vspan(x="at", source=source, **look)
    else:
        plot.hspan(y="at", source=source, **look)


def _stages(theme: str) -> figure:
    plot = _plot("stages", (0.0, 10.0), (-0.6, 6.6), x_axis_label="ms, p50 to p99")
    plot.xaxis.ticker = BasicTicker(desired_num_ticks=3)
    stages = _source("stages", y=[], p50=[], p99=[])
    plot.hbar("y", left="p50", right="p99", height=0.55, source=stages, color=ACCENT[theme])
    plot.scatter("p50", "y", source=stages, size=7, color=ACCENT[theme])
    n = len(STAGES)
    plot.yaxis.ticker = list(range(n))
    plot.yaxis.major_label_overrides = {n - 1 - i: name for i, name in enumerate(STAGES)}
    _hop(plot, theme, is_upright=True)
    return plot


def _rate(theme: str) -> figure:
    plot = _plot("rate", (-60.0, 0.0), (0.0, 100.0), y_axis_label="spikes/s")
    plot.xaxis.ticker = MINUTE
    source = _source("rate_data", x=[], y=[])
    plot.line("x", "y", source=source, line_color=ACCENT[theme], line_width=2)
    return plot


def _timeline(theme: str) -> figure:
    plot = _plot("timeline", (-SHOWN_S, 0.0), (0.0, 1.0))
    plot.yaxis.visible = False
    plot.grid.visible = False
    minutes = range(int(SHOWN_S / 60.0) + 1)
    plot.xaxis.ticker = [-60.0 * n for n in minutes]
    plot.xaxis.major_label_overrides = {-60.0 * n: f"{n} min ago" if n else "now" for n in minutes}
    plot.quad(
        left="left", right="right", bottom=0.0, top=0.45, color="color",
        source=_source("stretches", left=[], right=[], color=[]),
    )  # fmt: skip
    marks = plot.scatter(
        "x", 0.72, source=_source("events", x=[], color=[], event=[], told=[]), size=11,
        color="color", marker="inverted_triangle",
    )  # fmt: skip
    plot.add_tools(HoverTool(renderers=[marks], tooltips="@event: @told"))
    return plot


def _polar(theme: str) -> figure:
    plot = _plot("polar", (-1.0, 1.0), (-1.0, 1.0))
    plot.axis.visible = False
    plot.grid.visible = False
    for radius in (0.5, 1.0):
        plot.circle(0, 0, radius=radius, fill_color=None, line_color=GRID[theme])
    dots = plot.scatter(
        "x", "y", size="size", color=ACCENT[theme], fill_alpha=0.6, line_color=None,
        source=_source("polar_data", x=[], y=[], key=[], size=[]),
    )  # fmt: skip
    plot.add_tools(HoverTool(renderers=[dots], tooltips="@key"))
    return plot


def _array(theme: str) -> figure:
    plot = _plot("array", (-0.5, 9.5), (-9.5, 0.5))
    plot.axis.visible = False
    plot.grid.visible = False
    cells = plot.rect(
        "x", "y", width=0.92, height=0.92, fill_color=ACCENT[theme], fill_alpha="alpha",
        line_color=GRID[theme], source=_source("array_data", x=[], y=[], key=[], alpha=[], told=[]),
    )  # fmt: skip
    plot.add_tools(HoverTool(renderers=[cells], tooltips="@key @told"))
    return plot
