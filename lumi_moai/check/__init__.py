"""Batch scripts of anybody, read and judged by the facts of a site. Pure: the text goes in, findings come out."""

from collections.abc import Callable, Iterator, Sequence

from ..site import Site
from . import control, cores, devices, directives, environment, launch, limits, prices
from .case import Case
from .reader import Files, read
from .rule import Edit, Finding, Hit, Rule
from .script import Script

RULES: tuple[Rule, ...] = (
    *directives.RULES, *limits.RULES, *prices.RULES, *devices.RULES, *cores.RULES, *launch.RULES,
    *environment.RULES, *control.RULES,
)  # fmt: skip
_RANK = {"error": 0, "warning": 1, "note": 2}


def check(script: Script, site: Site, exists: Callable[[str], bool] = lambda _: False) -> tuple[Finding, ...]:
    """What is wrong with *script* on *site*, in the order of its lines; also in the scripts that it writes.

    *exists* tells whether a folder for logs is known to be there.
    """
    found: dict[tuple, Finding] = {}
    for one in (script, *script.inner):
        for finding in _of_one(Case(site, one, exists)):
            hit = finding.hit
            found.setdefault((finding.rule.id, hit.place.path, hit.place.line, hit.place.column, hit.message), finding)
    return tuple(sorted(found.values(), key=_order))


def _of_one(case: Case) -> Iterator[Finding]:
    # A script for another cluster: its partition says so, and nothing else can be judged by this site.
    foreign = case.script.asked.partition is not None and case.partition is None
    rules = (*directives.RULES, limits.RULES[0], *control.RULES[:1], environment.OPTION) if foreign else RULES
    for rule in rules:
        for hit in rule.look(case):
            yield Finding(rule=rule, hit=hit)


def _order(finding: Finding) -> tuple[bool, int, int, int, str]:
    place = finding.hit.place
    return (False, place.line, place.column, _RANK[finding.severity], finding.rule.id)


def fixed(text: str, findings: Sequence[Finding], path: str) -> tuple[str, tuple[Finding, ...]]:
    """*text* with the fixes of *findings* in the file *path*, and the findings that were fixed.

    Of two fixes that touch the same characters the first is made; the other one's turn is the next reading.
    """
    done: list[Finding] = []
    taken: list[Edit] = []
    for finding in findings:
        edits = finding.hit.edits
        if not edits or finding.hit.place.path != path or any(_meet(edit, other) for edit in edits for other in taken):
            continue
        taken.extend(edits)
        done.append(finding)
    parts, at = [], 0
    for edit in sorted(taken, key=lambda edit: (edit.start, edit.end)):
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]]), tuple(done)


def _meet(edit: Edit, other: Edit) -> bool:
    if edit.start == edit.end == other.start == other.end:
        return edit.text == other.text
    return edit.start < other.end and other.start < edit.end


__all__ = ["RULES", "Edit", "Files", "Finding", "Hit", "Rule", "Script", "check", "fixed", "read"]
