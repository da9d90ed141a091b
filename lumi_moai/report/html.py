"""A page as one HTML file that fetches nothing and runs nothing but our own two scripts."""

import re
from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import jinja2
from markupsafe import Markup

from .. import __version__, resources
from .charts import still
from .drawing import MARK, program, svg
from .parts import Figure, Page, Section


def as_html(page: Page) -> str:
    """*page* as HTML; every text in it is escaped.

    Raises RequestError when the drawing library is missing.
    """
    folder = resources.root("templates")
    loader = jinja2.FileSystemLoader(folder)
    house = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    house.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    scripts = [_inside(program()), _inside((folder / "report.js.j2").read_text(encoding="utf-8"))]
    return house.get_template("report.html.j2").render(
        page={"title": page.title, "subtitle": page.subtitle, "sections": [_drawn(each) for each in page.sections]},
        style=Markup((folder / "report.css.j2").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        program=scripts[0],
        script=scripts[1],
        policy=_policy(scripts),
        version=__version__,
        mark=MARK,
    )


def _drawn(section: Section) -> dict[str, Any]:
    return {**asdict(section), "figures": [_figure(figure) for figure in section.figures]}


def _figure(figure: Figure) -> dict[str, Any]:
    """*figure* with its chart drawn, for readers without scripts; vega escapes the text in it."""
    other = _figure(figure.other) if figure.other else None
    return {**asdict(figure), "spec": figure.spec, "svg": Markup(svg(still(figure.spec))), "other": other}  # noqa: S704


def _inside(script: str) -> Markup:
    """*script* such that nothing in it ends the element around it (HTML standard, 4.12.1.3)."""
    return Markup(re.sub(r"<(?=/script|!--|script)", r"\\x3C", script, flags=re.IGNORECASE))  # noqa: S704


def _policy(scripts: list[Markup]) -> str:
    """What a browser lets the page do: run these *scripts*, style itself, and ask nobody for anything."""
    sums = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {sums}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
