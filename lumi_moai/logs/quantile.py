"""The median of any number of values in bounded memory."""

from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from math import ceil, exp, floor, isfinite, log

EXACT = 1_000_000
"""Up to so many values the answer is exact; they take 8 bytes each."""
_WIDTH = log(1.0005)


class Quantiles:
    """Quantiles of the finite values above zero that were added.

    Exact for up to a million values. Beyond that every value is counted in a bucket of 0.05 % width, so that an answer
    is off by 0.025 % at most; values of any log span a few thousand buckets, a few MB.
    """

    def __init__(self) -> None:
        self._exact = array("d")
        self._buckets: Counter[int] = Counter()
        self._lowest, self._highest = float("inf"), 0.0

    def add(self, values: Iterable[float]) -> None:
        """Count *values*; those that no rate or time can be (zero, negative, not a number) are passed over."""
        new = array("d", values)
        # The common case at the speed of C: a sum is finite only if all of it is.
        if new and not (isfinite(sum(new)) and min(new) > 0):
            new = array("d", [value for value in new if 0 < value < float("inf")])
        self._exact.extend(new)
        if len(self._exact) > EXACT:
            self._pour()

    def _pour(self) -> None:
        values = array("d", [self._lowest, self._highest]) if self._buckets else array("d")
        values.extend(self._exact)
        self._lowest, self._highest = min(values), max(values)
        self._buckets.update(floor(log(value) / _WIDTH) for value in self._exact)
        self._exact = array("d")

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
            return sorted(self._exact)[place]
        keys = sorted(self._buckets)
        counts = accumulate(self._buckets[key] for key in keys)
        bucket = next(key for key, below in zip(keys, counts, strict=True) if below > place)
        return min(max(exp((bucket + 0.5) * _WIDTH), self._lowest), self._highest)

    def median(self) -> float | None:
        """The value in the middle."""
        return self.at(0.5)
