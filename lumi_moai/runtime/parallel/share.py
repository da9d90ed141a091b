"""Which rows of a global batch belong to a rank, and what they weigh."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Origin(ABC):
    """Where the rows of a rank came from, so that they can be put together anew."""

    collate: Callable[[Any], Any]
    keys: Sequence
    """Of this rank's rows."""
    every: Sequence
    """Of the rows of the global batch."""

    @abstractmethod
    def samples(self, keys: Sequence) -> list[Any]:
        """Those of *keys*."""

    @property
    @abstractmethod
    def owners(self) -> tuple[Any, ...]:
        """What may draw random numbers for them."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of one global batch that a rank computes."""

    rows: int
    """Rows of this rank that count; 0 when the batch has fewer rows than the job has ranks."""
    total: int
    """Rows of the global batch."""
    ranks: int
    fingerprint: int = field(default=0, compare=False)
    """Of the indices of the global batch, the same on all ranks and in every start."""

    origin: Origin | None = field(default=None, compare=False, repr=False)
    """None where the samples cannot be asked for again, or the loader does not pad."""

    is_whole: bool = field(default=False, compare=False)
    """Whether all rows of the batch were put together here, and this rank's taken from them."""

    went_back: list[bool] = field(default_factory=list, compare=False)
    """Not empty once a backward followed this batch."""

    lists: list[Any] = field(default_factory=list, compare=False, repr=False)
    """Of the batch, those with an entry for each row."""

    steps: list[bool] = field(default_factory=list, compare=False)
    """Of a batch with time first: False; True as well once ranks were found to have different numbers of steps."""

    @property
    def weight(self) -> float:
        """The rank's part of a mean over rows; the weights of all ranks add up to 1."""
        return self.rows / self.total

    @property
    def uneven(self) -> int:
        """0 when all ranks weigh the same, else the rows of the batch: equal values mean equal weights on each rank."""
        return self.total if self.total % self.ranks else 0

    @property
    def scale(self) -> float:
        """The factor on the rank's gradient before the plain average over ranks; 1.0 when all shares are equal."""
        return self.rows * self.ranks / self.total


def bounds(total: int, rank: int, ranks: int) -> tuple[int, int, Share]:
    """First row, end row and `Share` of *rank* in a batch of *total* rows; the first ranks take the rest.

    6 rows on 4 ranks are 2, 2, 1, 1. A rank without a row of its own computes row 0 with weight 0, because every rank
    must take part in what the ranks do together.
    """
    base, rest = divmod(total, ranks)
    start = rank * base + min(rank, rest)
    rows = base + (rank < rest)
    share = Share(rows=rows, total=total, ranks=ranks)
    return (start, start + rows, share) if rows else (0, min(1, total), share)


def cut(batch: Sequence, rank: int, ranks: int) -> tuple[Sequence, Share]:
    """The items of *batch* that belong to *rank*, and its `Share`."""
    start, end, share = bounds(len(batch), rank, ranks)
    return batch[start:end], share


_GOING_BACK: list[Share | None] = []


def going_back(share: Share | None) -> Share | None:
    """A backward begins, whose gradients are averaged as *share* weighs the ranks; None where they are not averaged."""
    _GOING_BACK[:] = [share]
    return share


def weight_in_backward(share: Share) -> float:
    """The rank's weight in the backward under way, for what was computed of a batch that was cut as *share* says.

    A script may fetch a batch that weighs otherwise between two of its losses.
    """
    now = _GOING_BACK[0] if _GOING_BACK else None
    return now.weight if now is not None and now.rows and share.rows else share.weight
