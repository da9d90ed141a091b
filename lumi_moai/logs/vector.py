"""The step lines of a large block by whole columns: lines of one shape are found and read together, by numpy.

What has no known shape comes back as text for the patterns. The result is the same as theirs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .digits import WORD, Digits
from .format import Format, Row
from .ranks import labelled
from .template import DIGITS, Template

Array = Any
_FLOATS = ("loss", "seconds", "rate", "tflops", "mfu", "memory_gib", "epoch")
_LONG = 2048
"""Lines longer than this are left to the patterns."""
_AT_ONCE = 1 << 19
"""Bytes of lines of one length that are looked at together; fewer make the calls dear, more need memory."""
_TRIES = 6
"""So many shapes of a length that only one line has, and the others of the length are left to the patterns."""
_KNOWN = 4096
"""Shapes that are remembered; a log with more of them has none that come again."""
_FEW = 64


@dataclass(frozen=True)
class Table:
    """The steps of a block as columns, in file order.

    `steps` has -1 and `columns` NaN where a line does not say it; `columns` has none that no line says. `losses` are
    those of the lines that have one, NaN where it is no number. `numbers` are the lines (0 for the block's first) that
    are left for the patterns, `before` how many marks of the format stand in the lines before each that are not;
    `hints` the only other marks that they may have, None where that is not known.
    """

    lines: int
    steps: Array
    losses: Array
    columns: Mapping[str, Array]
    total: int | None
    unit: bytes
    text: bytes
    numbers: Sequence[int]
    before: Sequence[int]
    hints: frozenset[bytes] | None

    def column(self, name: str) -> Array:
        """The column *name*, empty where no line has it."""
        return self.columns.get(name, np.empty(0))


class Shapes:
    """The shapes of a log's lines that are known so far; *learn* makes the template of a line."""

    def __init__(self, format_: Format, learn: Callable[[bytes], Template]) -> None:
        self._format, self._template = format_, learn
        self._known = 0
        self._of_length: dict[int, list[_Shape]] = {}
        self._room = np.empty(0, np.uint8)

    def table(self, block: bytes) -> Table | None:
        """The table of *block*, which consists of whole lines; None where its lines have to be read by patterns."""
        room = WORD + len(block) + _LONG + WORD
        if len(self._room) < room:
            self._room = np.zeros(room, np.uint8)
        page = _Page(block, self._room)
        for length, places in page.lengths():
            if length <= _LONG:
                each = _AT_ONCE // (length + WORD)
                for begin in range(0, len(places), each):
                    self._lines_of(page, length, places[begin : begin + each])
        return page.table(self._format)

    def _lines_of(self, page: "_Page", length: int, places: Array) -> None:
        """Put the lines at *places*, all of *length*, whose shape is known or becomes known onto the *page*."""
        rows = page.rows(places, length)
        known = self._of_length.setdefault(length, [])
        known = known or [self._learn(rows[0], length)]
        least, greatest = _over(np.minimum, rows), _over(np.maximum, rows)
        for shape in known:
            if shape.holds(least, greatest):
                page.read(places, rows, shape)
                return
        self._mixed(page, length, places, rows)

    def _mixed(self, page: "_Page", length: int, places: Array, rows: Array) -> None:
        """The lines of several shapes at *places*, with their *rows*."""
        for shape in self._of_length[length]:
            places, rows, _ = page.take(places, rows, shape)
        tries = _TRIES
        while len(places) and tries and self._known < _KNOWN:
            places, rows, count = page.take(places, rows, self._learn(rows[0], length))
            tries -= count == 1

    def _learn(self, row: Array, length: int) -> "_Shape":
        self._known += 1
        line = row[WORD : WORD + length].tobytes()
        found = _Shape(line, self._template(line), len(row))
        self._of_length[length].append(found)
        return found


class _Shape:
    """A shape: the least and the greatest byte that its lines have at each place of their rows, which are *wide*."""

    def __init__(self, line: bytes, template: Template, wide: int) -> None:
        self.template = template
        self.values = [value for value in template.values if value.column != "total"]
        self.total = next((slice(WORD + v.begin, WORD + v.end) for v in template.values if v.column == "total"), None)
        self.digits = Digits(self.values)
        text = np.frombuffer(line.translate(DIGITS), np.uint8)
        self._least, self._greatest = np.zeros(wide, np.uint8), np.full(wide, 255, np.uint8)
        self._least[WORD : WORD + len(line)] = text
        self._greatest[WORD : WORD + len(line)] = np.where(text == ord("0"), ord("9"), text)

    def holds(self, least: Array, greatest: Array) -> bool:
        """Whether rows between *least* and *greatest* all have this shape."""
        return bool((self._least <= least).all() and (greatest <= self._greatest).all())

    def fits(self, rows: Array) -> Array:
        """Which of *rows* have this shape; below the least byte a difference wraps round and is too great."""
        return (rows - self._least <= self._greatest - self._least).all(axis=1)


def _over(choose: Any, rows: Array) -> Array:
    """What *choose* (least or greatest) gives over all *rows*: half upon half, long vectors being the fastest."""
    while len(rows) > _FEW:
        half = (len(rows) + 1) // 2
        rows = choose(rows[:half], rows[-half:])
    return choose.reduce(rows)


class _Page:
    """A block, its lines by length, and the columns that fill while shapes are found."""

    def __init__(self, block: bytes, room: Array) -> None:
        self.block = block
        text = np.frombuffer(block, np.uint8)
        room[WORD : WORD + len(block)] = text
        self._room = room
        self.ends = np.flatnonzero(text == ord("\n"))
        self.starts = np.concatenate([[0], self.ends[:-1] + 1])
        count = len(self.ends)
        self.open = np.ones(count, bool)
        self.is_step = np.zeros(count, bool)
        self.has_loss = np.zeros(count, bool)
        self.marks = np.zeros(count, np.int64)
        self.steps = np.full(count, -1, np.int64)
        self.columns: dict[str, Array] = {}
        self.last_total: tuple[int, int] | None = None
        self.units: set[bytes] = set()
        self.hints: set[bytes] = set()
        self.hinted = 0

    def lengths(self) -> Iterator[tuple[int, Array]]:
        """Every length that lines have, with the places of those lines in file order."""
        sizes = self.ends - self.starts
        order = np.argsort(sizes, kind="stable")
        sizes = sizes[order]
        cuts = np.flatnonzero(np.diff(sizes, prepend=-1))
        yield from zip(sizes[cuts].tolist(), np.split(order, cuts[1:]), strict=True)

    def rows(self, places: Array, length: int) -> Array:
        """The lines at *places* as a matrix of bytes, with a word ahead of each and a few more to whole words."""
        wide = WORD + -(-length // WORD) * WORD
        windows = np.ndarray(len(self._room) - wide + 1, f"V{wide}", self._room, 0, (1,))
        return windows[self.starts[places]].view(np.uint8).reshape(len(places), wide)

    def take(self, places: Array, rows: Array, shape: _Shape) -> tuple[Array, Array, int]:
        """Read the lines of *shape*; what is left of *places* and *rows*, and how many lines there were."""
        same = shape.fits(rows)
        count = int(np.count_nonzero(same))
        if not count:
            return places, rows, 0
        self.read(places[same], rows[same], shape)
        return places[~same], rows[~same], count

    def read(self, places: Array, rows: Array, shape: _Shape) -> None:
        """Read the lines at *places*, which all have *shape*."""
        template = shape.template
        if template.patterns:
            if template.last:
                self.open[places[:-1]] = False
                places = places[-1:]
            self.hints.update(template.hints)
            self.hinted += len(places)
            return
        self.open[places] = False
        if not template.values:
            return
        self.marks[places] = template.marks
        self.is_step[places] = True
        for value, digits in zip(shape.values, shape.digits.of(rows), strict=True):
            if value.column == "step":
                self.steps[places] = digits
            else:
                self._column(value.column)[places] = value.of(digits.astype(np.float64))
            if value.column == "loss":
                self.has_loss[places] = True
        if shape.total:
            self._total(int(places[-1]), rows[-1, shape.total].tobytes())
        if template.unit:
            self.units.add(template.unit)

    def _column(self, name: str) -> Array:
        if name not in self.columns:
            self.columns[name] = np.full(len(self.ends), np.nan)
        return self.columns[name]

    def _total(self, place: int, digits: bytes) -> None:
        if self.last_total is None or place > self.last_total[0]:
            self.last_total = (place, int(digits))

    def table(self, format_: Format) -> Table | None:
        """What was found; None where a line that is left holds more than one step, or one with a rank in front."""
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
            steps=self.steps[steps],
            losses=self._column("loss")[np.flatnonzero(self.has_loss)],
            columns={name: column[steps] for name, column in self.columns.items() if name != "loss"},
            total=self.last_total[1] if self.last_total else None,
            unit=next(iter(self.units), b""),
            text=b"".join(lines),
            numbers=numbers.tolist(),
            before=before.tolist(),
            hints=frozenset(self.hints) if self.hinted == len(numbers) else None,
        )

    def _slow(self, place: int, line: bytes, format_: Format) -> bool:
        """Read one *line* by its format's pattern; false where it holds more than one step, or a rank in front."""
        rows = list(format_.rows(line))
        if len(rows) > 1 or b"\r" in line[:-2] or b"\x1b" in line or labelled(line, format_.mark):
            return False
        for found in rows:
            row = Row(*found)
            self.is_step[place] = True
            self.has_loss[place] = bool(row.loss)
            if row.step:
                self.steps[place] = int(row.step)
            for name in _FLOATS:
                if text := getattr(row, name):
                    self._column(name)[place] = float(text)
            if row.total:
                self._total(place, row.total)
            if row.unit:
                self.units.add(row.unit)
        return True
