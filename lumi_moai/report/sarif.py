"""Findings as SARIF 2.1.0, the format in which code hosts show the results of checks beside the lines."""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..check import Edit, Finding, Rule
from ..check.script import Place

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
# One script with its findings and its text.
Result = tuple[str, str, Sequence[Finding]]


def as_sarif(results: Iterable[Result], rules: Sequence[Rule], problems: Sequence[str]) -> dict[str, Any]:
    """The SARIF log of *results*; *problems* are files that could not be read, as notifications of the tool."""
    ids = [rule.id for rule in rules]
    found = [_result(finding, text, ids.index(finding.rule.id)) for _, text, many in results for finding in many]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "lumi-moai", "version": __version__, "rules": [_rule(r) for r in rules]}},
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": not problems,
                        "toolExecutionNotifications": [
                            {"level": "error", "message": {"text": problem}} for problem in problems
                        ],
                    }
                ],
                "results": found,
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.reason} Source: {rule.source}."},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, text: str, index: int) -> dict[str, Any]:
    place = finding.hit.place
    result: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": finding.hit.message},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(place.path)}, "region": _region(place)}}],
    }
    if finding.hit.edits:
        result["fixes"] = [_fix(finding, text)]
    return result


def _uri(path: str) -> str:
    return quote(path)


def _region(place: Place) -> dict[str, int]:
    return {
        "startLine": place.line,
        "startColumn": place.column,
        "endLine": place.end_line,
        "endColumn": max(place.end_column, place.column + (place.line == place.end_line)),
    }


def _fix(finding: Finding, text: str) -> dict[str, Any]:
    changes = [
        {"deletedRegion": _between(text, edit), "insertedContent": {"text": edit.text}} for edit in finding.hit.edits
    ]
    where = {"uri": _uri(finding.hit.place.path)}
    return {
        "description": {"text": finding.rule.title},
        "artifactChanges": [{"artifactLocation": where, "replacements": changes}],
    }


def _between(text: str, edit: Edit) -> dict[str, int]:
    (line, column), (end_line, end_column) = (_at(text, offset) for offset in (edit.start, edit.end))
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def _at(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
