"""How a log's values went, start by start, in bounded memory: what a chart needs and a summary leaves out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from . import FORMATS
from .blocks import blocks
from .format import Format
from .numbers import Numbers
from .ranks import apart, main
from .reading import rows_of
from .thin import LIMIT, Point, Thin

MOST_STARTS = 40
"""Of a log with more of them the rest is one."""
_FEW = 50

_MEMORY = (
    rb"\[Step (?P<a>\d{1,15})\][^\r\n]{0,300}?\bMemory: (?P<x>\d+(?:\.\d+)?) (?P<i>GiB)",
    rb"\bstep: +(?P<b>\d{1,15}) [^\r\n]{0,300}?\bmemory: +(?P<y>\d+(?:\.\d+)?)(?P<j>GiB|MiB)",
    rb"\biter: (?P<c>\d{1,15}) [^\r\n]{0,500}?\bmax_mem: (?P<z>\d+(?:\.\d+)?)(?P<k>M)\b",
)
_MEMORY_LINE = re.compile(b"|".join(_MEMORY))
_GIB = {b"GiB": 1.0, b"MiB": 1 / 1024, b"M": 1 / 1024}

# What programs say of the work of one global step, and of their ranks: words that are looked for first, the pattern.
_WORK = (
    ("rows", b"global batch", rb"lumi-moai: data parallel over \d+ ranks: global batch (\d{1,12}) is"),
    ("tokens", b"tokens per iteration", rb"tokens per iteration will be: ([\d,]{1,20})"),
    (
        "rows",
        b"train batch size",
        rb"Total train batch size \(w\. parallel, distributed & accumulation\) = ([\d,]{1,16})",
    ),
    ("rows", b"global batch", rb"\bglobal batch size:? +(\d{1,12})\b"),
)
_RANKS = (
    (b" ranks", rb"lumi-moai: (?:data parallel over|certificate right:|certificate:) (\d{1,7}) ranks"),
    (b"using world", rb"\busing world size: (\d{1,7})\b"),
)
_WORK_LINES = [(unit, mark, re.compile(pattern)) for unit, mark, pattern in _WORK]
_RANK_LINES = [(mark, re.compile(pattern)) for mark, pattern in _RANKS]


@dataclass(frozen=True, kw_only=True)
class Start:
    """What was logged from one start of the training to the next: points of (step, value), thinned."""

    first_step: int
    last_step: int
    records: int
    loss: tuple[Point, ...] = ()
    rate: tuple[Point, ...] = ()
    broken: int = 0
    """Losses that are no finite number."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A log as charts show it. `rate` is in `unit`s a second, memory in GiB as the log prints it for one device."""

    starts: tuple[Start, ...] = ()
    memory: tuple[tuple[Point, ...], ...] = ()
    unit: str | None = None
    scope: str = "total"
    work: float | None = None
    """Of one global step in `work_unit`: `rows` or `tokens`; None where no line says it."""
    work_unit: str | None = None
    ranks: int | None = None
    format: str | None = None
    """Name of the log's format."""
    rank: int | None = None
    """Whose lines these are, where a launcher put the ranks' numbers in front (`ranks.apart`)."""


def read_series(file: BinaryIO) -> Series:
    """The series of *file*. Any bytes are a log, if an empty one."""
    format_: Format | None = None
    ranks, said = _Ranks(), _Said()
    for block in blocks(file):
        for rank, text in apart(block.text):
            found, rows = rows_of(text, format_, FORMATS)
            if format_ and found is not format_:  # the weak one has met a better one
                ranks = _Ranks()
            format_ = found
            ranks.add(rank, rows, text)
        said.look(block.text)
    rank, steps, memory = ranks.main
    return Series(
        starts=tuple(steps.starts()),
        memory=tuple(thin.points for thin in memory.parts if thin.points),
        rank=rank,
        unit=steps.unit.decode() or None,
        scope=format_.scope if format_ else "total",
        work=said.work,
        work_unit=said.work_unit,
        ranks=said.ranks,
        format=format_.name if format_ else None,
    )


class _Ranks:
    """The steps and the memory of each rank that a launcher's labels tell apart."""

    def __init__(self) -> None:
        self._of: dict[int | None, tuple[int | None, _Steps, _Trace]] = {}

    def add(self, rank: int | None, rows: Iterable[tuple[bytes, ...]], text: bytes) -> None:
        points = list(_memories(text))
        if rows or points:
            _, steps, memory = self._of.setdefault(rank, (rank, _Steps(), _Trace()))
            steps.add(rows)
            memory.add(points)

    @property
    def main(self) -> "tuple[int | None, _Steps, _Trace]":
        """Those of the rank that stands for all."""
        return main(self._of, {rank: each[1].records for rank, each in self._of.items()}) or (None, _Steps(), _Trace())


class _Steps:
    """Rows, start by start."""

    def __init__(self) -> None:
        self.unit = b""
        self._parts: list[_Part] = []
        self._numbers = Numbers()

    def add(self, rows: Iterable[tuple[bytes, ...]]) -> None:
        for row in rows:
            loss, rate, unit = row[2], row[4], row[5]
            number = self._numbers.of(row)
            part = self._part(number)
            part.last, part.records = number, part.records + 1
            if loss:
                part.loss.add(number, float(loss))
            self.unit = self.unit or unit
            if rate and unit == self.unit:
                part.rate.add(number, float(rate))

    def _part(self, step: int) -> "_Part":
        if not self._parts or (step < self._parts[-1].last and len(self._parts) < MOST_STARTS):
            self._parts.append(_Part(step, LIMIT if len(self._parts) < 4 else _FEW))
        return self._parts[-1]

    @property
    def records(self) -> int:
        return sum(part.records for part in self._parts)

    def starts(self) -> Iterator[Start]:
        for part in self._parts:
            yield Start(
                first_step=part.first,
                last_step=part.last,
                records=part.records,
                loss=part.loss.points,
                rate=part.rate.points,
                broken=part.loss.broken,
            )


class _Part:
    def __init__(self, first: int, limit: int) -> None:
        self.first = self.last = first
        self.records = 0
        self.loss, self.rate = Thin(limit), Thin(limit)


class _Trace:
    """Points whose x goes back at a new start."""

    def __init__(self) -> None:
        self.parts: list[Thin] = []
        self._last = 0.0

    def add(self, points: Iterable[Point]) -> None:
        for x, y in points:
            if not self.parts or (x < self._last and len(self.parts) < MOST_STARTS):
                self.parts.append(Thin())
            self.parts[-1].add(x, y)
            self._last = x


def _memories(text: bytes) -> Iterator[Point]:
    if b"emory: " in text or b"max_mem: " in text:
        for match in _MEMORY_LINE.finditer(text):
            step, amount, unit = (part for part in match.groups() if part)
            yield float(step), float(amount) * _GIB[unit]


class _Said:
    """What the log says of the work of a step and of its ranks; the first word of each counts."""

    def __init__(self) -> None:
        self.work: float | None = None
        self.work_unit: str | None = None
        self.ranks: int | None = None

    def look(self, text: bytes) -> None:
        if self.work is None:
            for unit, mark, pattern in _WORK_LINES:
                if (
                    mark in text
                    and (match := pattern.search(text))
                    and (work := float(match[1].replace(b",", b"") or b"0"))
                ):
                    self.work, self.work_unit = work, unit
                    break
        if self.ranks is None:
            found = (pattern.search(text) for mark, pattern in _RANK_LINES if mark in text)
            self.ranks = next((int(match[1]) for match in found if match), None)
