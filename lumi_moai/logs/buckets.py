"""A million values counted by size: a bucket is a double's exponent and the first bits of its fraction."""

from array import array
from math import ldexp
from typing import Any

import numpy as np

_BITS = 11
"""Of the fraction: 2048 buckets between a power of two and the next, each 0.05 % wide at most."""
_BIAS = 1023
_WIDE = 1 << 20


def counts(values: array) -> tuple[float, float, dict[int, int]]:
    """The least and the largest of *values*, all above zero and finite, and how many lie in each bucket."""
    numbers = np.frombuffer(values)
    return float(numbers.min()), float(numbers.max()), _counts(numbers.view(np.int64) >> (52 - _BITS))


def _counts(places: Any) -> dict[int, int]:
    lowest = int(places.min())
    if int(places.max()) - lowest > _WIDE:
        found: tuple[Any, Any] = np.unique(places, return_counts=True)
        return dict(zip(found[0].tolist(), found[1].tolist(), strict=True))
    amounts = np.bincount(places - lowest)
    held = np.flatnonzero(amounts)
    return dict(zip((held + lowest).tolist(), amounts[held].tolist(), strict=True))


def middle(bucket: int) -> float:
    """The value in the middle of *bucket*."""
    exponent, part = divmod(bucket, 1 << _BITS)
    return ldexp(1 + (part + 0.5) / (1 << _BITS), exponent - _BIAS)
