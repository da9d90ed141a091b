"""Whose steps the lines of a log are: `srun --label` puts the rank's number in front, and ranks overtake each other."""

import re

from ..usage import Throughput
from .format import Format
from .steps import Steps

_LABEL = re.compile(rb"^ *(\d{1,7}): ", re.MULTILINE)
_LINE = re.compile(rb"(?: *(\d{1,7}): )?([^\n]*\n?)")


def apart(text: bytes) -> list[tuple[int | None, bytes]]:
    """*text* as one text of each rank, without its label, where two or more are labelled; else as it is."""
    if b": " not in text or len(set(map(int, _LABEL.findall(text)))) < 2:
        return [(None, text)]
    texts: dict[int | None, list[bytes]] = {}
    for label, line in _LINE.findall(text):
        texts.setdefault(int(label) if label else None, []).append(line)
    return [(rank, b"".join(lines)) for rank, lines in texts.items()]


def labelled(text: bytes, mark: bytes) -> bool:
    """Whether a line of *text* with *mark* in it has a label."""
    return re.search(rb"^ *\d{1,7}: [^\r\n]*" + re.escape(mark), text, re.MULTILINE) is not None


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
        """Those that stand for all ranks: of the lines without a label, else of the lowest rank that logged any."""
        logged = [(rank is not None, rank or 0, steps) for rank, steps in self.ranks.items() if steps.records]
        return min(logged, key=lambda each: each[:2])[2] if logged else self.ranks[None]

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
