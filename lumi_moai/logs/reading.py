"""One log being read: its steps by patterns, or as columns once their format is known and the log proves to be long."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from . import notes as _notes
from . import outcome as _outcome
from . import remarks as _remarks
from .blocks import BLOCK, LARGE, Block, Rest, texts
from .format import Format, Row
from .notes import Notes
from .outcome import Signs
from .ranks import Writers, apart, labelled
from .remarks import Remarks
from .steps import Steps
from .template import DIGITS, learn

if TYPE_CHECKING:
    from .vector import Shapes

LONG = 2 << 20
"""Bytes of a log from which on its steps are read as columns; of a shorter one, loading the library takes longer."""
_PAUSE = 32
"""So many blocks are read by patterns after one of which most lines had no shape that comes again."""
_ALL_MARKS = (*_outcome.MARKS, *_notes.MARKS, *_remarks.MARKS, _outcome.FIRST)
_LAST = _notes.LAST.difference(_outcome.MARKS, _remarks.MARKS)


def rows_of(
    text: bytes, known: Format | None, formats: Sequence[Format]
) -> tuple[Format | None, list[tuple[bytes, ...]]]:
    """The step lines of *text*, and the format that they are in: the *known* one, or the first that finds any."""
    for candidate in _candidates(known, formats):
        if candidate.mark in text and (rows := list(candidate.rows(text))):
            return candidate, rows
    return known, []


def _candidates(known: Format | None, formats: Sequence[Format]) -> Sequence[Format]:
    """The formats that text may be in: the *known* one; if it is weak, after all that are tried ahead of it."""
    if known is None or (known.weak and known not in formats):
        return formats
    return formats[: formats.index(known) + 1] if known.weak else (known,)


def _others_of(format_: Format, formats: Sequence[Format]) -> list[Format]:
    """The formats beside a log's own in which lines are looked for; beside a weak one those that are for that."""
    return [
        each
        for each in formats
        if each is not format_ and (each.beside or (each.spans and not each.weak and not format_.weak))
    ]


class Reading:
    """What is known of a log so far, block after block."""

    def __init__(self, name: str, formats: Sequence[Format], *, is_long: bool = False) -> None:
        self.name = name
        self.lines = 0
        """Line ends read so far."""
        self.writers = Writers()
        self._labelled = False
        self.notes, self.signs, self.remarks = Notes(), Signs(name), Remarks(name)
        self.format: Format | None = None
        self._formats = formats
        self._pause = 0
        self._seen = LONG if is_long else 0
        self._shapes: Shapes | None = None

    @property
    def steps(self) -> Steps:
        """The steps of lines without a label."""
        return self.writers.ranks[None]

    def go_on(self, row: Row | None) -> "Reading":
        """A reading of a part further on, ahead of which *row* was logged; it knows the format and the shapes."""
        part = Reading(self.name, self._formats)
        part.format, part._seen, part._shapes = self.format, self._seen, self._shapes
        part.steps.unit = self.steps.unit
        part.steps.first_step = part.steps.last_step = int(row.step) if row and row.step else None
        part.steps.first_epoch = part.steps.last_epoch = int(row.epoch) if row and row.epoch else None
        part.notes.found = dict(self.notes.found)
        return part

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "format": None, "_formats": (), "_shapes": None}

    def read(self, file: BinaryIO) -> None:
        """Read *file* to its end."""
        for text in texts(file, lambda: LARGE if self._shapes and not self._pause else BLOCK):
            self._add(text)

    def _add(self, text: bytes) -> None:
        self._seen += len(text)
        self._pause = max(0, self._pause - 1)
        cut = text.rfind(b"\n") + 1
        if cut and self._may_be_columns() and self._columns(text if cut == len(text) else text[:cut]):
            text = text[cut:]
        if text:
            self._patterns(Block(text, self.lines + 1))
            self.lines += text.count(b"\n")

    @property
    def has_columns(self) -> bool:
        """Whether the format is known and can be read as columns."""
        return self.format is not None and not self.format.weak and self.format.spans is not None

    def _may_be_columns(self) -> bool:
        format_ = self.format
        if self._seen < LONG or self._pause or self._labelled or format_ is None or not self.has_columns:
            return False
        if self._shapes is None:
            from .vector import Shapes

            marks = {mark.translate(DIGITS): mark for mark in _ALL_MARKS}
            others = tuple(each.mark for each in _others_of(format_, self._formats))
            self._shapes = Shapes(format_, partial(learn, format_=format_, marks=marks, others=others, last=_LAST))
        return True

    def _columns(self, text: bytes) -> bool:
        """Read *text* as columns; false where it has to be read by patterns."""
        from .fold import fold

        table = self._shapes.table(text) if self._shapes else None
        if table is None or _outcome.FIRST in table.text:  # a table of several lines
            return False
        if len(table.numbers) > len(table.steps) + 64:
            self._pause = _PAUSE
        if table.text:
            self._beside(Rest(table.text, self.lines + 1, text, table.numbers, table.before, table.hints), True)
        else:
            self.notes.look_at_clock(text)
        self.lines += table.lines
        fold(self.steps, table, warm="warmup_seconds" in self.notes.found)
        return True

    def _patterns(self, block: Block) -> None:
        found: list[tuple[int | None, list[tuple[bytes, ...]]]] = []
        for rank, text in apart(block.text):
            format_, rows = rows_of(text, self.format, self._formats)
            if self.format and format_ is not self.format:  # the weak one has met a better one
                self.writers, found = Writers(), []
            self.format = format_
            found.append((rank, rows))
        self._labelled = self._labelled or (self.format is not None and labelled(block.text, self.format.mark))
        self._beside(block, any(rows for _, rows in found))
        for rank, rows in found:
            if rows:
                self.writers.of(rank).add(rows, warm="warmup_seconds" in self.notes.found)

    def _others(self, block: Block, beside: bytes) -> None:
        """Steps in another format, on lines that have none in the log's own."""
        if self.format is None:
            return
        found = {each.mark: each for each in _others_of(self.format, self._formats)}
        for mark in block.having(tuple(found), beside):
            if rows := list(found[mark].rows(beside)):
                self.writers.of_other(found[mark]).add(rows)

    def _beside(self, block: Block, has_steps: bool) -> None:
        mark = self.format.mark if self.format else b""
        beside = block.beside(mark) if mark and has_steps else block.text
        self.notes.add(block, beside)
        self.signs.add(block, beside, records=self.writers.records, mark=mark or None)
        self._others(block, beside)
        self.remarks.add(block, beside)
