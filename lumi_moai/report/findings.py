"""Findings in a batch script: lines of text with the place under them, and the JSON object."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..check import Finding, Hit
from ..check.rule import Cost
from .text import units

_COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m", "note": "\x1b[36m"}
_OFF = "\x1b[0m"


def as_text(path: str, text: str, findings: Sequence[Finding], *, colours: bool = False) -> str:
    """*findings* in the script *text*, each with its line and what is meant in it underlined."""
    lines = text.split("\n")
    return "".join(f"{line}\n" for finding in findings for line in _one(path, lines, finding, colours))


def _one(path: str, lines: Sequence[str], finding: Finding, colours: bool) -> Iterator[str]:
    place, rule = finding.hit.place, finding.rule
    word = f"{_COLOURS[finding.severity]}{finding.severity}{_OFF}" if colours else finding.severity
    yield f"{place.path}:{place.line}:{place.column}: {word}: {finding.hit.message} [{rule.id} {rule.name}]"
    if place.path == path and place.line <= len(lines):
        yield from _shown(lines[place.line - 1].rstrip("\r"), finding.hit)
    if finding.hit.cost:
        yield f"    = costs {_price(finding.hit.cost)}"
    yield f"    = {rule.reason} ({finding.hit.source or rule.source})"
    if finding.hit.edits:
        yield "    = --fix changes this"


def _shown(line: str, hit: Hit) -> Iterator[str]:
    """The line, cut around the place when it is long, and the mark under it."""
    place = hit.place
    skip = max(0, place.column - 41) if len(line) > 110 else 0
    shown = "".join(letter if letter.isprintable() else " " for letter in line[skip : skip + 110])
    end = place.end_column if place.end_line == place.line else len(line) + 1
    width = max(1, min(end, skip + 111) - place.column)
    yield f"    | {shown}"
    if place.start is not None:
        yield f"    | {' ' * (place.column - 1 - skip)}{'^' * width}"


def _price(cost: Cost) -> str:
    return (
        f"{units(cost.now)} {cost.unit} until the time limit, {units(cost.cheaper)} with"
        f" {cost.advice or 'the cheaper request'}"
    )


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many of each severity."""
    found = [finding.severity for finding in findings]
    return {severity: found.count(severity) for severity in ("error", "warning", "note")}


def summary(findings: Sequence[Finding]) -> str:
    """The last line: `2 errors, 1 warning`."""
    words = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts(findings).items() if n]
    return ", ".join(words) or "nothing to say"


def as_dict(finding: Finding) -> dict[str, Any]:
    """The JSON object of one finding."""
    place, rule, cost = finding.hit.place, finding.rule, finding.hit.cost
    return {
        "rule": rule.id, "name": rule.name, "severity": finding.severity, "message": finding.hit.message,
        "path": place.path, "line": place.line, "column": place.column,
        "end_line": place.end_line, "end_column": place.end_column,
        "reason": rule.reason, "source": finding.hit.source or rule.source, "fixable": bool(finding.hit.edits),
        "cost": cost and {"unit": cost.unit, "billing_units": cost.now, "cheaper_billing_units": cost.cheaper},
    }  # fmt: skip
