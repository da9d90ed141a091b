"""How a run ended, by the line that says so: the heaviest of the signs in it, which is nearest to the cause.

Signs of equal weight: the first one in the log is the evidence. A sign that more steps follow was no end (a caught
exception, an earlier life of a requeued job) and is forgotten.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from .blocks import Block
from .shown import line_at
from .signs import CAUSE_OF, FINAL, MAYBE, SIGNS, Cause, Outcome, Sign

__all__ = ["FINAL", "OVER", "Cause", "Evidence", "Outcome", "Signs", "line_at"]

OVER = 20
"""So many step lines after a sign mean that the run went on; a few may still come, from ranks that print late."""
_HITS = 100
_IGNORED = b"Exception ignored in"
_NEAR = 4096
"""Bytes ahead of an error in which it may say that it was ignored."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The line that tells the outcome. `place` is `file:line`; `rank` is None where the line names none."""

    outcome: Outcome
    line: str
    place: str
    rank: int | None = None
    weight: int = 0
    cause: Cause | None = None

    @property
    def why(self) -> Cause:
        """The cause; where the line tells none, what such an outcome comes from."""
        return self.cause or cause_of(self.outcome)


def cause_of(outcome: Outcome) -> Cause:
    """What *outcome* comes from where nothing says more."""
    return CAUSE_OF.get(outcome, outcome)  # type: ignore[arg-type]  # the words of all others are those of causes


# Most lines with a sign say "error" or "Error" too: where a block has neither, their marks need not be looked for.
_ERROR = b"rror"
_OF_ERRORS = (
    b"TIME LIMIT", b"NODE FAIL", b"DUE TO PREEMPTION", b"DUE TO JOB REQUEUE", b"oom", b"Out Of Memory", b"CANCELLED",
)  # fmt: skip
MARKS = tuple(dict.fromkeys(sign.mark for sign in SIGNS))
_QUIET = tuple(mark for mark in MARKS if mark not in _OF_ERRORS and _ERROR not in mark)
# torchrun's closing table, which knows who failed first.
FIRST = b"Root Cause (first observed failure)"
_FIRST_RANK = re.compile(re.escape(FIRST) + rb":\s(?:[^\r\n]*\r?\n){1,6}?[^\r\n]*\brank +: (?P<rank>\d{1,9}) ")


class Signs:
    """The best evidence in a log, block after block."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._best: Evidence | None = None
        self._at = 0
        self.first_rank: int | None = None
        self.taken: deque[tuple[int, Evidence]] = deque(maxlen=OVER * 20)
        """What was the best at its time, the latest, with the number of step lines before."""

    def add(self, block: Block, beside: bytes, *, records: int, mark: bytes | None) -> None:
        """Read *block*; *records* step lines came before it and *mark* begins those in it.

        *beside* is what of it may hold signs; marks are looked for there only.
        """
        marks = MARKS if _ERROR in beside else _QUIET
        present = block.having(marks, beside)
        if FIRST in beside and (first := _FIRST_RANK.search(block.text)):
            self.first_rank = int(first["rank"])
        if not present:
            return
        hits = sorted(_hits(block.text, present), key=lambda hit: (hit[1].start(), -hit[0].weight))
        for sign, match in hits:
            inside = block.marks_before(mark, match.start()) if mark else 0
            seen = partial(_evidence, sign, match, block, self._name)
            self.weigh(sign.outcome, sign.weight, records + inside, seen)

    def weigh(self, outcome: Outcome, weight: int, at: int, seen: Callable[[], Evidence]) -> None:
        """Take what was *seen* after *at* step lines for the evidence if it outweighs what was."""
        best = self.best(at)
        good_end = outcome == "completed" and weight > MAYBE and (best is None or best.weight < FINAL)
        if best is None or good_end or weight > best.weight:
            self._best, self._at = seen(), at
            self.taken.append((at, self._best))

    def best(self, records: int) -> Evidence | None:
        """The evidence once *records* step lines were read; None where there is none or the run went on after it."""
        if self._best is None or records - self._at > OVER:
            return None
        lone = self._best.outcome == "failed" and self._best.rank is None
        return replace(self._best, rank=self.first_rank) if lone else self._best


def _evidence(sign: Sign, match: re.Match[bytes], block: Block, name: str) -> Evidence:
    begin = match.end() - len(match[0].lstrip(b"\r\n"))
    return Evidence(
        outcome=sign.outcome,
        line=line_at(block.text, begin),
        place=f"{name}:{block.line_of(begin)}",
        rank=_rank(match),
        weight=sign.weight,
        cause=sign.cause,
    )


def _hits(text: bytes, present: set[bytes]) -> Iterator[tuple[Sign, re.Match[bytes]]]:
    for sign in SIGNS:
        if sign.mark in present:
            for count, match in enumerate(sign.pattern.finditer(text)):
                if count == _HITS:
                    break
                if sign.outcome != "failed" or _IGNORED not in text or not _ignored(text, match.start()):
                    yield sign, match


def _ignored(text: bytes, position: int) -> bool:
    """Whether the error at *position* is one that Python ignored: of an object that it was clearing away."""
    before = text[max(0, position - _NEAR) : position]
    _, found, between = before.rpartition(_IGNORED)
    return bool(found) and all(line[:1] in (b" ", b"T", b"\r", b"") for line in between.split(b"\n")[1:])


_RANKS = ("rank", "rank_of_torch", "rank_of_srun", "rank_of_mpi", "rank_of_tee")
"""Groups of a sign that tell the rank, the surest first: torchrun's label is the number within a node."""


def _rank(match: re.Match[bytes]) -> int | None:
    named = match.groupdict()
    digits = next((named[each] for each in _RANKS if named.get(each)), None)
    return int(digits) if digits and len(digits) < 10 else None
