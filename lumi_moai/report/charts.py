"""Charts as Vega-Lite specifications: plain values, which the page and the picture files draw alike.

Source: https://vega.github.io/vega-lite/docs/ (version 6).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..logs.thin import Point
from ..scaling import Scaling
from .scale import number

Spec = dict[str, Any]
_FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans', sans-serif"
HOVER = "hover"
"""The layer that only a pointer wakes; it draws every point, so a still picture goes without."""
_SMALL = 1e-3
"""Values below this are written with an exponent."""
_LEGEND = 110
"""Letters that stand side by side in a legend."""
_LOG_FROM = 8
"""From this ratio of the sizes on both axes are logarithmic, or the small runs lie on top of each other."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours of a chart: text, grid, and the lines in their order."""

    text: str
    faint: str
    grid: str
    paper: str
    lines: tuple[str, ...]


# Okabe and Ito's colours, which most colour-blind readers can tell apart; yellow is left out, as it fades on white.
PRINTED = Palette(
    text="#1c2530",
    faint="#5b6673",
    grid="#e3e7eb",
    paper="#ffffff",
    lines=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#9a6700", "#6f4fa3", "#5b6673"),
)
STYLED = Palette(
    text="var(--text)",
    faint="var(--faint)",
    grid="var(--grid)",
    paper="transparent",
    lines=tuple(f"var(--line-{place})" for place in range(1, 9)),
)
"""The colours of the page's style sheet, so that light, dark and print need one drawing."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart: whose it is, and its points; a run that was restarted has several of one name."""

    name: str
    points: tuple[Point, ...]


def lines_chart(
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    zero: bool,
    runs: Sequence[str] = (),
    marks: Sequence[tuple[float, str]] = (),
    palette: Palette = STYLED,
) -> Spec:
    """*lines* over *x*; *y* is the title of the upright axis, which begins at 0 where *zero* says so.

    *runs* are all runs of the page, so that one has the same colour in every chart; *marks* are places on *x* with a
    word for each.
    """
    values = [
        {"run": line.name, "part": part, "x": at, "y": float(f"{value:.6g}")}
        for part, line in enumerate(lines)
        for at, value in line.points
    ]
    names = list(dict.fromkeys(line.name for line in lines))
    across = [at for line in lines for at, _ in line.points]
    encoding = {
        "x": _axis("x", x, {"domain": [min(across), max(across)], "nice": False, "padding": 6}),
        "y": _axis("y", y, {"domain": _reach([at for line in lines for _, at in line.points], zero), "nice": True}),
        "color": _colors(runs or names, names, palette),
        "detail": {"field": "part", "type": "nominal"},
    }
    few = all(len(line.points) <= 60 for line in lines)
    mark = {"type": "line", "strokeWidth": 1.8 if few else 1.1, "clip": True, "strokeJoin": "round"}
    layers = [
        {"mark": {**mark, "point": {"size": 28, "filled": True} if few else False}, "params": [_ZOOM]},
        *_marks(marks, palette),
        _hover(x, y),
        _cursor(palette),
    ]
    return {
        **_frame(palette),
        "usermeta": {"x": x},
        "params": [{"name": "at", "value": None}],
        "data": {"name": "points", "values": values},
        "encoding": encoding,
        "layer": layers,
    }


def _reach(heights: Sequence[float], zero: bool) -> list[float]:
    """The ends of the upright axis: some room above and below, so that no point is cut; from 0 where *zero* says so."""
    low, high = min(heights), max(heights)
    if zero and low >= 0:
        return [0, 1.04 * high or 1] if isfinite(1.04 * high) else [0, high]
    room = (0.04 * high - 0.04 * low) or 0.04 * abs(high) or 1
    ends = [low - room, high + room]
    return ends if all(map(isfinite, ends)) else [low, high]


def _marks(marks: Sequence[tuple[float, str]], palette: Palette) -> list[Spec]:
    if not marks:
        return []
    data = {"values": [{"x": at, "label": label} for at, label in marks]}
    place = {"x": {"field": "x", "type": "quantitative"}, "y": None, "color": None, "detail": None}
    rule = {"type": "rule", "color": palette.faint, "strokeDash": [2, 3], "clip": True}
    text = {"type": "text", "align": "left", "dx": 5, "baseline": "top", "y": 2, "color": palette.faint, "clip": True}
    return [
        {"data": data, "mark": rule, "encoding": place},
        {"data": data, "mark": text, "encoding": {**place, "text": {"field": "label", "type": "nominal"}}},
    ]


_ZOOM = {
    "name": "zoom",
    "bind": "scales",
    "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
}


def _hover(x: str, y: str) -> Spec:
    """A halo around the point under the pointer, with its values."""
    shown = [
        {"field": "run", "type": "nominal", "title": "run"},
        {"field": "x", "type": "quantitative", "title": x, "format": ",~r"},
        {"field": "y", "type": "quantitative", "title": y, "format": ",.6~g"},
    ]
    # Not `nearest`: Vega-Lite 6 then looks for words in the wrong place and shows `undefined`.
    near = {"name": "near", "select": {"type": "point", "on": "pointerover", "clear": "pointerout"}}
    opacity = {"condition": {"param": "near", "empty": False, "value": 0.45}, "value": 0}
    return {
        "name": HOVER,
        "mark": {"type": "point", "filled": True, "size": 260, "clip": True},
        "params": [near],
        "encoding": {"opacity": opacity, "tooltip": shown},
    }


def _cursor(palette: Palette) -> Spec:
    """The upright line that the arrow keys move."""
    return {
        "transform": [{"filter": "datum.x === at"}, {"aggregate": [{"op": "count", "as": "n"}], "groupby": ["x"]}],
        "mark": {"type": "rule", "color": palette.faint, "strokeDash": [3, 3]},
        "encoding": {"y": None, "color": None, "detail": None},
    }


def _axis(field: str, title: str, scale: Mapping[str, Any], **axis: Any) -> Spec:
    small = max(map(abs, scale.get("domain", [1.0]))) < _SMALL
    form = "~s" if field == "y" and "/s" in title else ".3~g" if small else ",.6~r"
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": dict(scale),
        "axis": {
            "format": form, "grid": field == "y", "tickCount": 6, "labelOverlap": True,
            "labelExpr": "datum.value === 0 ? '0' : datum.label", **axis,
        },
    }  # fmt: skip


def _colors(runs: Sequence[str], drawn: Sequence[str], palette: Palette) -> Spec:
    """A colour for each of *runs*, and a legend of those that are *drawn* where there are several runs."""
    some = [palette.lines[place % len(palette.lines)] for place in range(len(runs))]
    columns = min(max(1, _LEGEND // (max(map(len, drawn)) + 4)), 4)
    legend = {"orient": "top", "title": None, "columns": columns, "labelLimit": 900 // columns, "values": list(drawn)}
    legend |= {"symbolType": "stroke", "symbolStrokeWidth": 3, "symbolOpacity": 1}
    return {
        "field": "run",
        "type": "nominal",
        "scale": {"domain": list(runs), "range": some},
        "legend": legend if len(runs) > 1 else None,
    }


def still(spec: Spec) -> Spec:
    """*spec* without what only a pointer shows."""
    return (
        {**spec, "layer": [layer for layer in spec["layer"] if layer.get("name") != HOVER]} if "layer" in spec else spec
    )


def starts_chart(
    bars: Sequence[Mapping[str, Any]], runs: Sequence[str], x: str = "step", palette: Palette = STYLED
) -> Spec:
    """What each start of one of *runs* covered on the axis *x*: *bars* have `run`, `start`, `first` and `last`."""
    form = ",~r" if x == "step" else ",.4~g"
    encoding = {
        "y": {
            "field": "start", "type": "ordinal", "title": None, "sort": None,
            "axis": {"labelLimit": 260, "ticks": False, "domain": False, "grid": False},
        },
        "x": {**_axis("first", x, {"zero": False}), "axis": {"format": form, "grid": True, "tickCount": 6}},
        "x2": {"field": "last"},
        "color": {**_colors(runs, runs, palette), "legend": None},
        "tooltip": [
            {"field": "start", "type": "nominal", "title": "start"},
            {"field": "first", "type": "quantitative", "title": f"from {x}", "format": form},
            {"field": "last", "type": "quantitative", "title": f"to {x}", "format": form},
        ],
    }  # fmt: skip
    return {
        **_frame(palette, height=26 * len(bars) + 10),
        "usermeta": {"x": x},
        "data": {"name": "points", "values": list(bars)},
        "mark": {"type": "bar", "height": 12, "cornerRadius": 2, "minBandSize": 3},
        "encoding": encoding,
    }


def scaling_chart(scaling: Scaling, palette: Palette = PRINTED) -> Spec:
    """Throughput over devices, beside what perfect scaling of the smallest run gives; efficiencies as labels."""
    usable = [each for each in scaling.runs if each.run.devices and each.run.rate]
    values = [
        {
            "x": each.run.devices, "y": each.run.rate, "kind": "measured",
            "label": _percent(each.weak if scaling.kind == "weak" else each.strong),
            "run": f"{each.run.flavor or ''} {each.run.name}".strip(),
        }
        for each in usable
    ]  # fmt: skip
    sizes = sorted({each.run.devices or 0 for each in usable})
    least = usable[0].run
    perfect = [{"x": size, "y": size * (least.per_device or 0.0), "kind": "perfect"} for size in sizes]
    scale: Spec = {"type": "log", "base": 2, "nice": False} if sizes[-1] >= _LOG_FROM * sizes[0] else {"type": "linear"}
    ends = [sizes[0] if scale["type"] == "log" else 0, sizes[-1]]
    unit = next((each.run.unit for each in usable if each.run.unit), "items")
    encoding = {
        "x": _axis("x", "devices", {**scale, "domain": ends, "nice": False, "padding": 8}, values=sizes, format=",d"),
        "y": _axis("y", f"{unit}/s", {"type": scale["type"]}),
    }
    return {
        **_frame(palette, height=300),
        "usermeta": {"x": "devices"},
        "params": [{"name": "at", "value": None}],
        "data": {"name": "points", "values": [*values, *perfect]},
        "encoding": encoding,
        "layer": [*_scaling_layers(palette), *_limit(scaling, palette), _cursor(palette)],
    }


def _scaling_layers(palette: Palette) -> list[Spec]:
    measured = {"filter": "datum.kind === 'measured'"}
    color = {
        "field": "kind", "type": "nominal",
        "scale": {"domain": ["measured", "perfect"], "range": [palette.lines[0], palette.faint]},
        "legend": {"orient": "top", "title": None, "symbolType": "stroke", "symbolStrokeWidth": 3},
    }  # fmt: skip
    shown = [
        {"field": "run", "type": "nominal", "title": "run"},
        {"field": "x", "type": "quantitative", "title": "devices", "format": ",d"},
        {"field": "y", "type": "quantitative", "title": "rate", "format": ",.6~g"},
        {"field": "label", "type": "nominal", "title": "efficiency"},
    ]
    line = {"aggregate": [{"op": "median", "field": "y", "as": "y"}], "groupby": ["x", "kind"]}
    dash = {"condition": {"test": "datum.kind === 'perfect'", "value": [5, 4]}, "value": [1, 0]}
    return [
        {
            "transform": [line],
            "mark": {"type": "line", "strokeWidth": 1.8},
            "encoding": {"color": color, "strokeDash": dash},
        },
        {
            "transform": [measured],
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"color": color, "tooltip": shown},
        },
        {
            "transform": [measured],
            "mark": {"type": "text", "dy": 16, "dx": 4, "align": "left", "fontSize": 12, "color": palette.text},
            "encoding": {"text": {"field": "label", "type": "nominal"}},
        },
    ]


def _limit(scaling: Scaling, palette: Palette) -> list[Spec]:
    """The size up to which more devices pay, where one does not."""
    last = scaling.last_that_pays
    if last is None or scaling.first_that_does_not is None:
        return []
    return _marks([(last.devices or 0, f"pays up to {number(last.devices or 0)}")], palette)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _frame(palette: Palette, height: Any = 260) -> Spec:
    axis = {
        "labelColor": palette.faint, "titleColor": palette.faint, "gridColor": palette.grid,
        "domainColor": palette.grid, "tickColor": palette.grid, "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "titlePadding": 10, "labelPadding": 5,
    }  # fmt: skip
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": palette.paper,
        "config": {
            "font": _FONT,
            "aria": False,
            "view": {"stroke": None},
            "axis": axis,
            "legend": {"labelColor": palette.text, "labelFontSize": 12, "offset": 8},
            "text": {"font": _FONT},
        },
    }
