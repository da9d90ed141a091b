"""Lines that differ only in their digits: read once by the patterns, then by place.

All digits of a line become 0; what is left is its shape. No pattern of ours tells one digit from another, so lines of
one shape are step lines or not alike, with their values at the same places. What one line proves holds for all.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .format import Format, Row
from .ranks import labelled

DIGITS = bytes(48 if 48 <= code <= 57 else code for code in range(256))
"""For `bytes.translate`: every digit becomes 0."""
_PLAIN = re.compile(rb"\d+(?:\.\d+)?")
_SURE = 15
"""So many digits are exact in a float, and so is a division by the power of ten behind them."""
# What a group is to the column of a row, as `lines` has it.
_COLUMNS: Mapping[str, tuple[str, bytes]] = {
    "step": ("step", b""), "epoch": ("epoch", b""), "total": ("total", b""), "loss": ("loss", b""),
    "seconds": ("seconds", b""), "ms": ("seconds", b""), "us": ("seconds", b""),
    "tokens": ("rate", b"tokens"), "samples": ("rate", b"samples"),
    "images": ("rate", b"samples"),
    "tflops": ("tflops", b""), "mfu": ("mfu", b""), "mfu_percent": ("mfu", b""), "gib": ("memory_gib", b""),
    "mib": ("memory_gib", b""),
}  # fmt: skip
_DIVISORS = {"ms": 1e3, "us": 1e6}
_FACTORS = {"mfu_percent": 0.01, "mib": 1 / 1024}


@dataclass(frozen=True)
class Value:
    """A number at a fixed place of a line: `begin` to `end`, of which `decimals` stand behind the point."""

    column: str
    begin: int
    end: int
    decimals: int
    divisor: float = 1.0
    factor: float = 1.0

    def of(self, digits: float) -> float:
        """The value, from its *digits* read as one whole number; of numbers or arrays of them."""
        value = digits / 10.0**self.decimals
        value = value if self.divisor == 1.0 else value / self.divisor
        return value if self.factor == 1.0 else value * self.factor


@dataclass(frozen=True)
class Template:
    """A shape of step lines; without `values` it is one of lines that say nothing that we look for."""

    values: tuple[Value, ...] = ()
    unit: bytes = b""
    marks: int = 0
    """How often the format's mark is in the line."""
    patterns: bool = False
    """The lines have to be read by patterns; they may have the marks of `hints` and no others."""
    hints: tuple[bytes, ...] = ()
    last: bool = False
    """Only the last of these lines in a block has to be read."""


def learn(
    line: bytes,
    format_: Format,
    marks: Mapping[bytes, bytes],
    others: Sequence[bytes] = (),
    last: Collection[bytes] = (),
) -> Template:
    """The template of *line* without its line end.

    *marks* are those of everything that a log may say beside its steps, by their shapes, *others* those of other
    formats' step lines. Of lines with no other marks than those in *last*, the last one says it all.
    """
    shape = line.translate(DIGITS)
    hints = tuple(mark for of, mark in marks.items() if of in shape)
    others_in = tuple(mark for mark in others if mark.translate(DIGITS) in shape)
    has_mark = format_.mark.translate(DIGITS) in shape
    if hints or not has_mark:
        hints += others_in
        once = bool(hints) and not has_mark and all(mark in last for mark in hints)
        return Template(patterns=bool(hints), hints=hints, last=once)
    if labelled(line, format_.mark):
        return Template(patterns=True)
    rows = list(format_.rows(line + b"\n"))
    found = format_.spans(line) if format_.spans and len(rows) == 1 else None
    read = _checked(line, Row(*rows[0]), found, line.count(format_.mark)) if found else None
    return read or Template(patterns=True)


def _checked(line: bytes, row: Row, found: Mapping[str, tuple[int, int]], marks: int) -> Template | None:
    """The template by the places *found*, if they give every value that the patterns gave in *row*."""
    values, unit = [], b""
    for group, place in found.items():
        begin, text = place[0], line[slice(*place)].removesuffix(b".")
        if group not in _COLUMNS or not _PLAIN.fullmatch(text) or sum(map(text.count, b"0123456789")) > _SURE:
            return None
        column, counts = _COLUMNS[group]
        unit = unit or counts
        decimals = len(text.partition(b".")[2])
        values.append(
            Value(column, begin, begin + len(text), decimals, _DIVISORS.get(group, 1.0), _FACTORS.get(group, 1.0))
        )
    given = {value.column: value.of(int(line[value.begin : value.end].replace(b".", b""))) for value in values}
    wanted = {name: float(text) for name, text in row._asdict().items() if text and name != "unit"}
    return Template(tuple(values), unit, marks) if given == wanted and unit == row.unit else None
