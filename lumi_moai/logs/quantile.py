"""The median of any number of values in bounded memory."""

from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from math import ceil, floor, isfinite
from typing import Any

EXACT = 1_000_000
"""Up to so many values the answer is exact; they take 8 bytes each."""
_FEW = 100_000
"""Values beyond these wait until there are so many, and are counted together."""


class Quantiles:
    """Quantiles of the finite values above zero that were added.

    Exact for up to a million values. Beyond that every value is counted in a bucket of 0.05 % width, so that an answer
    is off by 0.025 % at most; values of any log span a few thousand buckets, a few MB.
    """

    def __init__(self) -> None:
        self._exact = array("d")
        self._sorted: list[float] | None = None
        self._buckets: Counter[int] = Counter()
        self._lowest, self._highest = float("inf"), 0.0

    def add(self, values: Iterable[float]) -> None:
        """Count *values*; those that no rate or time can be (zero, negative, not a number) are passed over."""
        new = array("d", values)
        # The common case at the speed of C: a sum is finite only if all of it is.
        if new and not (isfinite(sum(new)) and min(new) > 0):
            new = array("d", [value for value in new if 0 < value < float("inf")])
        self._extend(new)

    def add_array(self, values: Any) -> None:
        """Count *values*, an array of numpy's, as `add` does."""
        self._extend(array("d", values[(values > 0) & (values < float("inf"))].tobytes()))

    def merge(self, others: "Quantiles") -> None:
        """Count what *others* counted."""
        self._lowest, self._highest = min(self._lowest, others._lowest), max(self._highest, others._highest)
        self._buckets.update(others._buckets)
        self._extend(others._exact)

    def _extend(self, new: array) -> None:
        self._exact.extend(new)
        self._sorted = None
        if len(self._exact) > (_FEW if self._buckets else EXACT):
            self._pour()

    def _pour(self) -> None:
        self._count(self._exact)
        self._exact, self._sorted = array("d"), None

    def _count(self, values: array) -> None:
        from .buckets import counts

        lowest, highest, found = counts(values)
        self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
        self._buckets.update(found)

    def __len__(self) -> int:
        """How many values were counted."""
        return len(self._exact) + self._buckets.total()

    def at(self, share: float) -> float | None:
        """The value below which *share* (0 to 1) of all lie, the mean of the two nearest; None where there is none."""
        if not self:
            return None
        if self._buckets and self._exact:
            self._pour()
        place = share * (len(self) - 1)
        low, high = self._nth(floor(place)), self._nth(ceil(place))
        return low + (high - low) * (place - floor(place))

    def _nth(self, place: int) -> float:
        if not self._buckets:
            self._sorted = self._sorted or sorted(self._exact)
            return self._sorted[place]
        if place in (0, len(self) - 1):
            return self._highest if place else self._lowest
        from .buckets import middle

        keys = sorted(self._buckets)
        counts = accumulate(self._buckets[key] for key in keys)
        bucket = next(key for key, below in zip(keys, counts, strict=True) if below > place)
        return min(max(middle(bucket), self._lowest), self._highest)

    def median(self) -> float | None:
        """The value in the middle."""
        return self.at(0.5)
