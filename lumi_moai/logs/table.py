"""Tables of a training, comma by comma, as Lightning's CSVLogger, Keras' CSVLogger and timm write them.

::

    epoch,step,train_loss_step,train_loss_epoch
    0,49,2.31,

The names stand in the first line only. So a log that begins with names of columns, of which one is that of a step or an
epoch and one that of a loss or rate, is turned into lines of JSON as it is read, line for line. A line with an epoch
and no step tells the epoch as a whole.
"""

import csv
import json
import re
from collections.abc import Sequence

from .format import Format, Row
from .jsonlines import LOSSES, RATES, STEPS, TIMES, row_of

MARK = b'{"csv": '
_LONGEST = 1 << 14
_NAME = re.compile(r"[A-Za-z_][\w ./()-]{0,99}")
_OTHERS = {"Epoch": "epoch", "Step": "step", "Training Loss": "loss", "Loss": "loss", "Train Loss": "loss"}
_OF_EPOCHS = ("train_loss_epoch", "train/loss_epoch", "loss_epoch")


class Header:
    """The names of a table's columns, of which each line of numbers becomes a line of JSON."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [_OTHERS.get(name, name) for name in names]
        steady = any(name in LOSSES for name in self._names)
        self._loss = next((name for name in _OF_EPOCHS if name in self._names), None) if not steady else None

    def lines(self, text: bytes) -> bytes:
        """*text*, lines of the table, as so many lines of JSON; a last line without its end has lost its last cell."""
        *whole, last = text.split(b"\n")
        return b"\n".join([*map(self._line, whole), self._line(last, torn=True)])

    def _line(self, line: bytes, *, torn: bool = False) -> bytes:
        cells = _cells(line)[: -1 if torn else None]
        if len(cells) < 2:
            return line
        found = {
            name: value for name, cell in zip(self._names, cells, strict=False) if (value := _value(cell)) is not None
        }
        if self._loss in found:
            found["loss"] = found[self._loss]
        return MARK + json.dumps(found).encode() + b"}"


def header(text: bytes) -> Header | None:
    """The header with which a log that begins with *text* begins; None where it is no table of a training."""
    names = _cells(text.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0])
    if len(names) < 2 or not all(map(_NAME.fullmatch, names)) or len(set(names)) < len(names):
        return None
    known = {_OTHERS.get(name, name) for name in names}
    values = {*LOSSES, *_OF_EPOCHS, *RATES, *TIMES}
    return Header(names) if {*STEPS, "epoch"} & known and values & known else None


def _cells(line: bytes) -> list[str]:
    if b"," not in line or len(line) > _LONGEST:
        return []
    try:
        return [cell.strip() for cell in next(csv.reader([line.decode(errors="replace").strip("\r")]), [])]
    except csv.Error:
        return []


def _value(cell: str) -> float | int | None:
    try:
        return int(cell) if cell.isdecimal() and len(cell) < 19 else float(cell)
    except ValueError:
        return None


def _rows(block: bytes) -> list[tuple[bytes, ...]]:
    lines = (line[len(MARK) : -1] for line in block.splitlines() if line.startswith(MARK))
    return [row for line in lines if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not any(name in found for name in (*LOSSES, *RATES, *TIMES)):
        return None
    return row_of(found, epochs=True)


FORMAT = Format(name="csv", mark=MARK, rows=_rows)
