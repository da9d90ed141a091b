"""The step lines of a large block by whole columns: lines of one shape are found and read together, by numpy.

What has no known shape comes back as text for the patterns. The result is the same as theirs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .format import Format, Row
from .template import DIGITS, Template, learn

Array = Any
_COLUMNS = ("step", "loss", "seconds", "rate", "tflops", "mfu", "memory_gib")
_WORD = 8
_LONG = 2048
"""Lines longer than this are left to the patterns."""
_AT_ONCE = 2048
"""Lines of one length that are looked at together, so that they stay in the processor's cache."""
_TRIES = 6
"""So many shapes of a length that only one line has, and the others of the length are left to the patterns."""
_KNOWN = 4096
"""Shapes that are remembered; a log with more of them has none that come again."""


@dataclass(frozen=True)
class Table:
    """The steps of a block as columns of equal length, in file order; NaN where a line does not say it.

    `has_loss` tells a loss that is not a number from none. `numbers` are the lines (0 for the block's first) that are
    left for the patterns, `before` how many marks of the format stand in the lines before each that are not;
    `hints` the only other marks that they may have, None where that is not known.
    """

    lines: int
    columns: dict[str, Array]
    has_loss: Array
    total: int | None
    unit: bytes
    text: bytes
    numbers: Sequence[int]
    before: Sequence[int]
    hints: frozenset[bytes] | None


class Shapes:
    """The shapes of a log's lines that are known so far."""

    def __init__(self, format_: Format, marks: Mapping[bytes, bytes], others: Sequence[bytes]) -> None:
        self.format = format_
        self._marks, self._others = marks, others
        self._known = 0
        self._of_length: dict[int, list[_Shape]] = {}

    def table(self, block: bytes) -> Table | None:
        """The table of *block*, which consists of whole lines; None where its lines have to be read by patterns."""
        page = _Page(block)
        for length in page.lengths():
            if length <= _LONG:
                places = page.of_length(length)
                for begin in range(0, len(places), _AT_ONCE):
                    self._lines_of(page, length, places[begin : begin + _AT_ONCE])
        return page.table(self.format)

    def _lines_of(self, page: "_Page", length: int, places: Array) -> None:
        """Put the lines at *places*, all of *length*, whose shape is known or becomes known onto the *page*."""
        rows = page.rows(places, length)
        tries = _TRIES
        for shape in self._of_length.get(length, ()):
            if not len(places):
                return
            places, rows, _ = page.take(places, rows, shape)
        while len(places) and tries and self._known < _KNOWN:
            shape = self._learn(rows[0, :length].tobytes())
            places, rows, count = page.take(places, rows, shape)
            tries -= count == 1

    def _learn(self, line: bytes) -> "_Shape":
        self._known += 1
        found = _Shape(line, learn(line, self.format, self._marks, self._others))
        self._of_length.setdefault(len(line), []).append(found)
        return found


class _Shape:
    """A shape and what tells the lines that have it, eight bytes at a time.

    Xor with the shape leaves 0 to 9 of a digit and 0 of all else. To add six tells a digit from what is more, by the
    upper half of the byte; a carry comes only from a byte that is wrong itself.
    """

    def __init__(self, line: bytes, template: Template) -> None:
        self.template = template
        shape = np.frombuffer(line.translate(DIGITS).ljust(_wide(len(line)), b"\0"), np.uint8)
        digit = shape == 48
        checked = np.where(digit, 0xF0, 0xFF).astype(np.uint8)
        checked[len(line) :] = 0
        self._words, self._checked = shape.view(np.uint64), checked.view(np.uint64)
        self._six = np.where(digit, 6, 0).astype(np.uint8).view(np.uint64)

    def fits(self, rows: Array) -> Array:
        """Which of *rows* have this shape."""
        words = rows.view(np.uint64) ^ self._words
        words |= words + self._six
        words &= self._checked
        return np.bitwise_or.reduce(words, axis=1) == 0


def _wide(length: int) -> int:
    """The least number of whole words that hold *length* bytes, in bytes."""
    return -(-max(length, 1) // _WORD) * _WORD


class _Page:
    """A block, its lines by length, and the columns that fill while shapes are found."""

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.bytes = np.frombuffer(block + bytes(_LONG + _WORD), np.uint8)
        ends = np.flatnonzero(self.bytes[: len(block)] == 10)
        self.starts = np.concatenate([[0], ends[:-1] + 1])
        self.ends = ends
        self.order = np.argsort(ends - self.starts, kind="stable")
        sizes = (ends - self.starts)[self.order]
        self._cuts = np.flatnonzero(np.diff(sizes, prepend=-1))
        self._sizes = sizes
        count = len(ends)
        self.open = np.ones(count, bool)
        self.marks = np.zeros(count, np.int64)
        self.is_step = np.zeros(count, bool)
        self.has_loss = np.zeros(count, bool)
        self.columns = {name: np.full(count, np.nan) for name in _COLUMNS[1:]}
        self.columns["step"] = np.full(count, -1, np.int64)
        self.last_total: tuple[int, int] | None = None
        self.units: set[bytes] = set()
        self.hints: set[bytes] = set()
        self.hinted = 0

    def lengths(self) -> Iterator[int]:
        """Every length that lines have."""
        yield from self._sizes[self._cuts].tolist()

    def of_length(self, length: int) -> Array:
        """The lines of *length*."""
        begin, end = np.searchsorted(self._sizes, [length, length + 1])
        return self.order[begin:end]

    def rows(self, places: Array, length: int) -> Array:
        """The lines at *places* as a matrix of bytes, with a few more to whole words."""
        wide = _wide(length)
        windows = np.ndarray((len(self.bytes) - wide + 1, wide), np.uint8, self.bytes, 0, (1, 1))
        return windows[self.starts[places]]

    def take(self, places: Array, rows: Array, shape: _Shape) -> tuple[Array, Array, int]:
        """Read the lines of *shape*; what is left of *places* and *rows*, and how many lines there were."""
        same = shape.fits(rows)
        count = int(np.count_nonzero(same))
        if not count:
            return places, rows, 0
        if count == len(places):
            self._read(places, rows, shape.template)
            return places[:0], rows[:0], count
        self._read(places[same], rows[same], shape.template)
        return places[~same], rows[~same], count

    def _read(self, places: Array, rows: Array, template: Template) -> None:
        if template.patterns:
            self.hints.update(template.hints)
            self.hinted += len(places)
            return
        self.open[places] = False
        if not template.values:
            return
        self.marks[places] = template.marks
        self.is_step[places] = True
        for value in template.values:
            if value.column == "total":
                self._total(int(places[-1]), rows[-1, value.begin : value.end])
            else:
                digits = rows[:, value.begin : value.end].astype(np.float64) @ _weights(
                    value.end - value.begin, value.decimals
                )
                digits -= 48.0 * _weights(value.end - value.begin, value.decimals).sum()
                self.columns[value.column][places] = digits if value.column == "step" else value.of(digits)
        if any(value.column == "loss" for value in template.values):
            self.has_loss[places] = True
        if template.unit:
            self.units.add(template.unit)

    def _total(self, place: int, digits: Array) -> None:
        if self.last_total is None or place > self.last_total[0]:
            self.last_total = (place, int(digits.tobytes()))

    def table(self, format_: Format) -> Table | None:
        """What was found; None where a line that is left holds more than one step."""
        numbers = np.flatnonzero(self.open)
        lines = [self.block[self.starts[place] : self.ends[place] + 1] for place in numbers.tolist()]
        before = np.cumsum(self.marks)[numbers] if len(numbers) else numbers
        for place, line in zip(numbers.tolist(), lines, strict=True):
            if format_.mark in line and not self._slow(place, line, format_):
                return None
        if len(self.units) > 1:
            return None
        steps = np.flatnonzero(self.is_step)
        return Table(
            lines=len(self.ends),
            columns={name: column[steps] for name, column in self.columns.items()},
            has_loss=self.has_loss[steps],
            total=self.last_total[1] if self.last_total else None,
            unit=next(iter(self.units), b""),
            text=b"".join(lines),
            numbers=numbers.tolist(),
            before=before.tolist(),
            hints=frozenset(self.hints) if self.hinted == len(numbers) else None,
        )

    def _slow(self, place: int, line: bytes, format_: Format) -> bool:
        """Read one *line* by its format's pattern; false where it holds more than one step."""
        rows = list(format_.rows(line))
        if len(rows) > 1 or b"\r" in line[:-2] or b"\x1b" in line:
            return False
        for found in rows:
            row = Row(*found)
            self.is_step[place] = True
            self.has_loss[place] = bool(row.loss)
            if row.step:
                self.columns["step"][place] = int(row.step)
            for name in _COLUMNS[1:]:
                if text := getattr(row, name):
                    self.columns[name][place] = float(text)
            if row.total:
                self._total(place, np.frombuffer(row.total, np.uint8))
            if row.unit:
                self.units.add(row.unit)
        return True


_WEIGHTS: dict[tuple[int, int], Array] = {}


def _weights(width: int, decimals: int) -> Array:
    """What each byte of a number counts; the point counts nothing."""
    if (width, decimals) not in _WEIGHTS:
        powers = [10.0**power for power in reversed(range(width - bool(decimals)))]
        if decimals:
            powers.insert(width - decimals - 1, 0.0)
        _WEIGHTS[width, decimals] = np.array(powers)
    return _WEIGHTS[width, decimals]
