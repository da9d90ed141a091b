"""Batch scripts of anybody, read and judged by the facts of a site. Pure: the text goes in, findings come out."""

from collections.abc import Callable, Iterator, Sequence

from ..site import Site
from . import control, cores, devices, directives, environment, launch, limits, prices
from .case import Case
from .parts import components, named
from .reader import Files, read
from .rule import Edit, Finding, Hit, Rule
from .script import Script

RULES: tuple[Rule, ...] = (
    *directives.RULES, *limits.RULES, *prices.RULES, *devices.RULES, *cores.RULES, *launch.RULES,
    *environment.RULES, *control.RULES,
)  # fmt: skip
_OF_DIRECTIVES = tuple(rule for rule in directives.RULES if rule.id in ("LM103", "LM104", "LM105", "LM106", "LM111"))
_RANK = {"error": 0, "warning": 1, "note": 2}


def check(script: Script, site: Site, exists: Callable[[str], bool] = lambda _: False) -> tuple[Finding, ...]:
    """What is wrong with *script* on *site*, in the order of its lines; also in the scripts that it writes.

    *exists* tells whether a folder for logs is known to be there.
    """
    found: dict[tuple, Finding] = {}
    for one in (script, *script.inner):
        first, *later = components(one)
        for finding in _of_one(Case(site, first, exists)):
            found.setdefault(_key(finding.rule, finding.hit), finding)
        for number, part in enumerate(later, 1):
            for finding in _of_part(Case(site, part, exists)):
                if _key(finding.rule, finding.hit) not in found:  # an option of the first part holds for this one too
                    hit = named(finding.hit, number, part)
                    found.setdefault(_key(finding.rule, hit), Finding(rule=finding.rule, hit=hit))
    return tuple(sorted(found.values(), key=_order))


def _key(rule: Rule, hit: Hit) -> tuple:
    return (rule.id, hit.place.path, hit.place.line, hit.place.column, hit.message)


def _of_part(case: Case) -> Iterator[Finding]:
    """What is said about a later part of a heterogeneous job: rules on directives, and on steps where it has any."""
    about = (*_OF_DIRECTIVES, *limits.RULES, *prices.RULES, *devices.RULES, *(cores.RULES if case.steps else ()))
    foreign = case.script.asked.partition is not None and case.partition is None
    for rule in (*_OF_DIRECTIVES, limits.RULES[0]) if foreign else about:
        for hit in rule.look(case):
            yield Finding(rule=rule, hit=hit)


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


def rounds(text: str) -> int:
    """How often *text* may have to be fixed and read again: a line may have two faults that hide those of the next."""
    return 2 * (text.count("\n") + 1)


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


__all__ = ["RULES", "Edit", "Files", "Finding", "Hit", "Rule", "Script", "check", "fixed", "read", "rounds"]
