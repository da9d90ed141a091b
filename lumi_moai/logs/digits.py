"""Numbers at fixed places of many rows of text at once.

Eight characters are one word of the processor. Three multiplications join the digits in all words: neighbours to pairs,
pairs to fours, fours to the whole number. What stands in a word ahead of a shorter number is masked out first.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice
from typing import Any

import numpy as np

from .template import Value

Array = Any
WORD = 8
"""Bytes of a word. So many have to stand ahead of the text in each row, whatever they are."""
_JOINS = (
    (10 << 8 | 1, 8, 0x00FF00FF00FF00FF),
    (100 << 16 | 1, 16, 0x0000FFFF0000FFFF),
    (10_000 << 32 | 1, 32, 0x00000000FFFFFFFF),
)
"""Factor, shift and mask of each joining: with 10 * 2^8 + 1 a byte becomes ten times the one ahead of it and itself."""


class Digits:
    """The places of *values* in rows of one shape, as pieces of eight digits at most without the point."""

    def __init__(self, values: Sequence[Value]) -> None:
        pieces = [list(_pieces(value)) for value in values]
        flat = [piece for each in pieces for piece in each]
        self._ends = [end for end, _, _ in flat]
        self._masks = _column([0x0F0F0F0F0F0F0F0F << 8 * (WORD - width) & (1 << 64) - 1 for _, width, _ in flat])
        self._powers = _column([10**power for _, _, power in flat])
        self._counts = [len(each) for each in pieces]

    def of(self, rows: Array) -> Iterator[Array]:
        """For each value its digits in each of *rows* as one whole number, uint64."""
        words = np.empty((len(self._ends), len(rows)), np.uint64)
        for word, end in zip(words, self._ends, strict=True):
            word[:] = np.ndarray(len(rows), "<u8", rows, end, rows.strides[:1])
        words &= self._masks
        for factor, shift, mask in _JOINS:
            words *= np.uint64(factor)
            words >>= np.uint64(shift)
            words &= np.uint64(mask)
        words *= self._powers
        found = iter(words)
        for count in self._counts:
            yield reduce(np.add, islice(found, count))


def _pieces(value: Value) -> Iterator[tuple[int, int, int]]:
    """Where each piece ends, its digits, and the power of ten that it counts."""
    point = value.end - value.decimals - 1 if value.decimals else value.end
    for begin, end, power in ((value.begin, point, value.decimals), (point + 1, value.end, 0)):
        for last in range(end, begin, -WORD):
            yield last, min(WORD, last - begin), power + end - last


def _column(numbers: Sequence[int]) -> Array:
    return np.array(numbers, np.uint64)[:, np.newaxis]
