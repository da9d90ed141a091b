"""The step lines of a large block by whole columns: lines of one shape are found and read together, by numpy.

What has no known shape comes back as text for the patterns. The result is the same as theirs.
"""

from collections.abc import Iterator, Sequence
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
_TRIES = 6
"""So many shapes of a length that only one line has, and the others of the length are left to the patterns."""
_KNOWN = 4096
"""Shapes that are remembered; a log with more of them has none that come again."""


@dataclass(frozen=True)
class Table:
    """The steps of a block as columns of equal length, in file order; NaN where a line does not say it.

    `has_loss` tells a loss that is not a number from none. `numbers` are the lines (0 for the block's first) that are
    left for the patterns, `before` how many marks of the format stand in the lines before each that are not.
    """

    columns: dict[str, Array]
    has_loss: Array
    total: int | None
    unit: bytes
    text: bytes
    numbers: Sequence[int]
    before: Sequence[int]


class Shapes:
    """The shapes of a log's lines that are known so far."""

    def __init__(self, format_: Format, marks: tuple[bytes, ...]) -> None:
        self.format = format_
        self._marks = marks
        self._known: dict[bytes, Template | None] = {}
        self._of_length: dict[int, list[tuple[Array, Template | None]]] = {}

    def table(self, block: bytes) -> Table | None:
        """The table of *block*, which consists of whole lines; None where its lines have to be read by patterns."""
        page = _Page(block)
        for length in page.lengths():
            if length <= _LONG:
                self._lines_of(page, length)
        return page.table(self.format)

    def _lines_of(self, page: "_Page", length: int) -> None:
        """Put all lines of *length* whose shape is known, or becomes known, onto the *page*."""
        places = page.of_length(length)
        rows, words = page.rows(places, length)
        tries = _TRIES
        for shape, template in self._of_length.get(length, ()):
            if not len(places):
                return
            places, rows, words, _ = page.take(places, rows, words, shape, template)
        while len(places) and tries and len(self._known) < _KNOWN:
            shape, template = self._learn(rows[0, :length].tobytes(), words[0])
            places, rows, words, count = page.take(places, rows, words, shape, template)
            tries -= count == 1

    def _learn(self, line: bytes, shape: Array) -> tuple[Array, Template | None]:
        found = learn(line, self.format, self._marks)
        self._known[line.translate(DIGITS)] = found
        entry = (shape.copy(), found)
        self._of_length.setdefault(len(line), []).append(entry)
        return entry


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

    def lengths(self) -> Iterator[int]:
        """Every length that lines have."""
        yield from self._sizes[self._cuts].tolist()

    def of_length(self, length: int) -> Array:
        """The lines of *length*."""
        begin, end = np.searchsorted(self._sizes, [length, length + 1])
        return self.order[begin:end]

    def rows(self, places: Array, length: int) -> tuple[Array, Array]:
        """The lines at *places* as a matrix of bytes, and their shapes as one of words."""
        wide = -(-max(length, 1) // _WORD) * _WORD
        windows = np.lib.stride_tricks.as_strided(self.bytes, (len(self.bytes) - wide + 1, wide), (1, 1))
        rows = windows[self.starts[places]]
        shape = rows & (255 - 15 * ((rows - 48) < 10).view(np.uint8))
        if length < wide:
            shape[:, length:] = 0
        return rows, shape.view(np.uint64)

    def take(
        self, places: Array, rows: Array, words: Array, shape: Array, template: Template | None
    ) -> tuple[Array, Array, Array, int]:
        """Read the lines of *shape* by *template*; what is left of the three, and how many lines there were."""
        same = words[:, 0] == shape[0]
        for place in range(1, words.shape[1]):
            same &= words[:, place] == shape[place]
        count = int(np.count_nonzero(same))
        if not count:
            return places, rows, words, 0
        whole = count == len(places)
        if template is not None:
            self._read(places if whole else places[same], rows if whole else rows[same], template)
        if whole:
            return places[:0], rows[:0], words[:0], count
        return places[~same], rows[~same], words[~same], count

    def _read(self, places: Array, rows: Array, template: Template) -> None:
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
            columns={name: column[steps] for name, column in self.columns.items()},
            has_loss=self.has_loss[steps],
            total=self.last_total[1] if self.last_total else None,
            unit=next(iter(self.units), b""),
            text=b"".join(lines),
            numbers=numbers.tolist(),
            before=before.tolist(),
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
