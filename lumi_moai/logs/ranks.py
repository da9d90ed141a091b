"""Whose steps the lines of a log are: launchers put the rank's number in front, and ranks overtake each other.

::

    3: step 10 loss 2.5                 srun --label
    [rank3]:step 10 loss 2.5            torchrun with a template of one's own; torch in front of errors
    [default3]:step 10 loss 2.5         torchrun --tee
    [1,3]<stdout>:step 10 loss 2.5      mpirun --tag-output
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from ..usage import Throughput
from .format import Format
from .steps import Steps

_FRONT = (
    rb" *(?:(\d{1,7}): (?: *(?=\[(?:default|rank)\d))?|(?=\[(?:default|rank)\d{1,7}\]:|\[\d{1,7},\d{1,7}\]<std))"
    rb"(?:\[(?:default|rank)(\d{1,7})\]: ?|\[\d{1,7},(\d{1,7})\]<std(?:out|err)>: ?)?"
)
_LABEL = re.compile(rb"^" + _FRONT, re.MULTILINE)
_LINE = re.compile(rb"(?:" + _FRONT + rb")?([^\n]*\n?)")
_NODE = 1 << 24
"""More than the ranks of a node: where two launchers label, the outer one's number counts first."""
Item = TypeVar("Item")


def apart(text: bytes) -> list[tuple[int | None, bytes]]:
    """*text* as one text of each rank, without its label; lines without one belong to None."""
    if (b": " not in text and b"]:" not in text and b"]<std" not in text) or _LABEL.search(text) is None:
        return [(None, text)]
    texts: dict[int | None, list[bytes]] = {}
    for outer, inner, tagged, line in _LINE.findall(text):
        texts.setdefault(_rank(outer, inner or tagged), []).append(line)
    return [(rank, b"".join(lines)) for rank, lines in texts.items()]


def _rank(outer: bytes, inner: bytes) -> int | None:
    if outer and inner:
        return int(outer) * _NODE + int(inner)
    return int(outer or inner) if outer or inner else None


def labelled(text: bytes, mark: bytes) -> bool:
    """Whether a line of *text* with *mark* in it has a label."""
    return mark in text and re.search(rb"^" + _FRONT + rb"[^\r\n]*" + re.escape(mark), text, re.MULTILINE) is not None


def main(ranks: Mapping[int | None, Item], records: Mapping[int | None, int]) -> Item | None:
    """What stands for all *ranks*: that of lines without a label, else of the lowest rank that logged as many.

    A rank with less than half of the most *records* has lost its label here and there, or says little.
    """
    most = max(records.values(), default=0)
    many = [rank for rank, count in records.items() if count and 2 * count >= most]
    return ranks[min(many, key=lambda rank: (rank is not None, rank or 0))] if many else None


class Writers:
    """The steps of a log by who wrote them: ranks that say the same, or another program with another format."""

    def __init__(self) -> None:
        self.ranks: dict[int | None, Steps] = {None: Steps()}
        self.others: dict[str, tuple[Format, Steps]] = {}

    def of(self, rank: int | None) -> Steps:
        """The steps of *rank*; of None, those of lines without a label."""
        return self.ranks.setdefault(rank, Steps())

    def of_other(self, format_: Format) -> Steps:
        """The steps in another format than the log's own."""
        return self.others.setdefault(format_.name, (format_, Steps()))[1]

    @property
    def records(self) -> int:
        """Step lines of all ranks."""
        return sum(steps.records for steps in self.ranks.values())

    @property
    def main(self) -> Steps:
        """Those that stand for all ranks."""
        return main(self.ranks, {rank: steps.records for rank, steps in self.ranks.items()}) or self.ranks[None]

    @property
    def logged(self) -> int:
        """How many ranks logged steps."""
        return sum(rank is not None and steps.records > 0 for rank, steps in self.ranks.items())

    def rate_beside(self) -> Throughput | None:
        """The rate that a format without losses told beside the steps."""
        rates = (steps.throughput(format_.scope) for format_, steps in self.others.values() if format_.beside)
        return next(filter(None, rates), None)

    def memory_beside(self) -> float | None:
        """The most memory of one device that such a format told, GiB."""
        return max((steps.memory for format_, steps in self.others.values() if format_.beside), default=0.0) or None

    def better(self) -> tuple[Format, Steps] | None:
        """The other format, if the log's own is only a few lines among its."""
        for format_, steps in self.others.values():
            if steps.records > 2 * self.records and (steps.loss_last is not None or self.main.loss_last is None):
                return format_, steps
        return None
