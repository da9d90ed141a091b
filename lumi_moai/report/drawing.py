"""Specifications drawn: as SVG, as PNG, as the program that a page carries along, and in a terminal."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..scaling import Scaling
from .scale import number

MARK = "made by lumi-moai"
"""Stands near the beginning of every file that we write, so that we know our own again."""
_WIDTH = 760
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2
_PROGRAM = """
window.lumiMoai = { draw: (place, spec) => vegaEmbed(place, spec,
  { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: true }) };
"""


def picture(spec: Mapping[str, Any], path: str) -> bytes:
    """*spec* drawn for the file at *path*, whose name says whether as PNG or SVG.

    Raises RequestError for another ending, or when the drawing library is missing.
    """
    ending = Path(path).suffix.lower()
    if ending == ".svg":
        return svg(spec).encode()
    if ending == ".png":
        data = _library().vegalite_to_png(_sized(spec), scale=2)
        return _marked(data)
    raise RequestError(f"{path!r} ends in neither .png nor .svg, which are the pictures that can be written")


def svg(spec: Mapping[str, Any]) -> str:
    """*spec* as the text of an SVG file.

    Raises RequestError when the drawing library is missing.
    """
    drawn: str = _library().vegalite_to_svg(_sized(spec))
    return drawn.replace(">", f"><!-- {MARK} -->", 1)


@cache
def program() -> str:
    """The JavaScript that draws specifications in a page: Vega, Vega-Lite and vega-embed, nothing fetched.

    Raises RequestError when the drawing library is missing.
    """
    text: str = _library().javascript_bundle(_PROGRAM)
    return text


def _library() -> Any:
    try:
        import vl_convert
    except ImportError:
        raise RequestError(
            "charts need vl-convert-python, which is not installed; `pip install 'lumi-moai[report]'`"
        ) from None
    return vl_convert


def _sized(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**_drawable(spec), "width": _WIDTH}


def _drawable(value: Any) -> Any:
    """*value* without letters that SVG cannot hold: vl-convert 1.9 ends the whole process at the first of them."""
    if isinstance(value, str):
        return _NOT_XML.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {key: _drawable(each) for key, each in value.items()}
    return [_drawable(each) for each in value] if isinstance(value, list) else value


def _marked(png: bytes) -> bytes:
    """*png* with our mark as a text chunk behind its header, which has 33 bytes (PNG specification, 11.3.4.3)."""
    from zlib import crc32

    body = b"tEXtSoftware\0" + MARK.encode()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + crc32(body).to_bytes(4, "big")
    return png[:33] + chunk + png[33:]


def terminal(scaling: Scaling, *, width: int = 60, height: int = 14) -> str:
    """Throughput over devices in dots, beside what perfect scaling gives.

    Raises RequestError when the plotting library is missing.
    """
    try:
        import plotille
    except ImportError:
        raise RequestError(
            "a plot in the terminal needs plotille, which is not installed; `pip install 'lumi-moai[report]'`"
        ) from None
    usable = [each.run for each in scaling.runs if each.run.devices and each.run.rate]
    sizes, rates = [run.devices or 0 for run in usable], [run.rate or 0.0 for run in usable]
    perfect = [size * (usable[0].per_device or 0.0) for size in sizes]
    figure = plotille.Figure()
    figure.width, figure.height, figure.with_colors = width, height, False
    figure.x_label, figure.y_label = "devices", f"{usable[0].unit or 'items'}/s"
    figure.x_ticks_fkt = lambda low, _: number(round(low, 1))
    figure.y_ticks_fkt = lambda low, _: f"{number(round(low)):>10}"
    figure.set_x_limits(min_=0, max_=sizes[-1] * 1.05)
    figure.set_y_limits(min_=0, max_=max(*rates, *perfect) * 1.05)
    figure.plot([0, *sizes], [0.0, *perfect], label="perfect")
    figure.plot(sizes, rates, label="measured", marker="o")
    text: str = figure.show(legend=True)
    return text.replace("\u2800", " ") + "\n"
