"""What a step of the self-check gave, and why it gave nothing or another result."""

import math
from dataclasses import dataclass, field
from typing import Any

from ....errors import RequestError
from . import words
from .body import Unfit


class FailedError(RequestError):
    """The ranks do not compute what one device would; the message has the numbers and no reason."""

    reasons = words.REASONS


class RowByRowError(FailedError):
    """They draw single numbers for row after row, and each rank has fewer rows than one device."""

    reasons = words.ROW_BY_ROW


class DrawsError(Unfit):
    """The step draws random numbers, which would not be the same for all rows and for a part of them."""


class EnoughError(BaseException):
    """The first backward of a checked body is over; no script catches it by accident."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One step."""

    loss: float
    norm: float
    """Of all gradients."""
    drawn: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    """What `random` and numpy would have drawn next."""
    singles: int = field(default=0, compare=False)
    """How many single numbers torch drew, as far as draws are steadied."""

    def agrees(self, other: "Result", loss: float, norm: float) -> bool:
        """Whether the two are one, up to these relative differences; infinite numbers are not compared."""
        return _is_close(self.loss, other.loss, loss) and _is_close(self.norm, other.norm, norm)


def _is_close(mine: float, theirs: float, tolerance: float) -> bool:
    finite = math.isfinite(mine) and math.isfinite(theirs)
    return not finite or math.isclose(mine, theirs, rel_tol=tolerance, abs_tol=1e-6)
